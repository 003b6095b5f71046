#include "train/record_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.hpp"

namespace red::train {

RecordFile::RecordFile(std::filesystem::path path, Open how) : path_(std::move(path)) {
  const int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (how == Open::create ? O_EXCL : 0);
  descriptor_ = ::open(path_.c_str(), flags, 0666);  // NOLINT(cppcoreguidelines-pro-type-vararg)
  if (descriptor_ < 0) throw IoError("{}: cannot open: {}", path_.string(), std::strerror(errno));
  struct stat status {};
  if (::fstat(descriptor_, &status) != 0) {
    const int reason = errno;
    ::close(descriptor_);
    throw IoError("{}: cannot ask for its size: {}", path_.string(), std::strerror(reason));
  }
  end_ = status.st_size;
}

RecordFile::~RecordFile() {
  ::close(descriptor_);
}

void RecordFile::append(std::string_view record) {
  int64_t at = end_;
  while (!record.empty()) {
    const ssize_t written = ::pwrite(descriptor_, record.data(), record.size(), at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const int reason = written < 0 ? errno : ENOSPC;
      // Where this fails too, the next record is written over the part.
      [[maybe_unused]] const int cut = ::ftruncate(descriptor_, end_);
      throw IoError("{}: cannot write: {}", path_.string(), std::strerror(reason));
    }
    at += written;
    record.remove_prefix(static_cast<std::size_t>(written));
  }
  end_ = at;
}

}  // namespace red::train

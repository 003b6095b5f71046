#include "data/file_io.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/watch.hpp"

namespace red::data {
namespace {

constexpr std::size_t kBufferBytes = 1 << 20;

[[noreturn]] void fail(std::string_view what, const std::filesystem::path& path) {
  const int code = errno;
  throw IoError("{} {}: {} (errno {})", what, path.string(), std::strerror(code), code);
}

void sync_folder(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) fail("cannot open folder", folder);
  const int result = ::fsync(fd), error = errno;
  ::close(fd);
  errno = error;
  if (result != 0) fail("cannot sync folder", folder);
}

void read_fully(int fd, const std::filesystem::path& path, uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    const watch::BlockingPoint reading("reading", path.native());
    const ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail("cannot read", path);
    if (got == 0) {
      throw DataError("{}: ends at byte {}, {} more were expected; was it truncated?", path.string(), offset,
                      out.size());
    }
    offset += static_cast<uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
}

}  // namespace

InputFile::InputFile(std::filesystem::path path) : path_(std::move(path)) {
  const watch::BlockingPoint opening("opening", path_.native());
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) fail("cannot open", path_);
  struct stat status {};
  const int result = ::fstat(fd_, &status), error = errno;
  if (result != 0 || S_ISDIR(status.st_mode)) ::close(fd_);  // no destructor will
  errno = error;
  if (result != 0) fail("cannot stat", path_);
  if (S_ISDIR(status.st_mode)) throw IoError("cannot read {}: it is a folder", path_.string());
  num_bytes_ = static_cast<uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)), fd_(std::exchange(other.fd_, -1)), num_bytes_(other.num_bytes_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(num_bytes_, other.num_bytes_);
  return *this;
}

void InputFile::read_at(uint64_t offset, std::span<std::byte> out) const {
  read_fully(fd_, path_, offset, out);
}

std::string read_whole(const std::filesystem::path& path) {
  const InputFile file(path);
  std::string bytes(file.num_bytes(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(bytes)));
  return bytes;
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const InputFile file(path);
  if (file.num_bytes() == 0) return;
  void* address = ::mmap(nullptr, file.num_bytes(), PROT_READ, MAP_SHARED, file.fd_, 0);
  if (address == MAP_FAILED) fail("cannot map", path);
  bytes_ = {static_cast<const std::byte*>(address), file.num_bytes()};
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

void MappedFile::drop_pages() const {
  if (!bytes_.empty()) ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
}

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)), partial_(path_) {
  partial_ += ".partial";
  fd_ = ::open(partial_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (fd_ < 0) fail("cannot create", partial_);
  buffer_.reserve(kBufferBytes);
}

OutputFile::~OutputFile() {
  if (published_) return;
  if (fd_ >= 0) ::close(fd_);
  if (::unlink(partial_.c_str()) != 0) {
    log::warning("cannot remove {}: {}", partial_.string(), std::strerror(errno));
  }
}

void OutputFile::write_fully(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put == 0) errno = ENOSPC;  // POSIX leaves that open; a full device is the only likely reason
    if (put <= 0) fail("cannot write", partial_);
    offset += static_cast<uint64_t>(put);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
}

void OutputFile::flush() {
  write_fully(flushed_, buffer_);
  flushed_ += buffer_.size();
  buffer_.clear();
}

void OutputFile::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t part = std::min(bytes.size(), kBufferBytes - buffer_.size());
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(part));
    bytes = bytes.subspan(part);
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void OutputFile::write_at(uint64_t offset, std::span<const std::byte> bytes) {
  flush();
  write_fully(offset, bytes);
}

void OutputFile::read_at(uint64_t offset, std::span<std::byte> out) {
  flush();
  read_fully(fd_, partial_, offset, out);
}

void OutputFile::sync() {
  flush();
  if (::fsync(fd_) != 0) fail("cannot sync", partial_);
}

void OutputFile::publish() {
  sync();
  if (::close(std::exchange(fd_, -1)) != 0) fail("cannot close", partial_);
  if (::rename(partial_.c_str(), path_.c_str()) != 0) fail("cannot rename to its final name", partial_);
  published_ = true;
  sync_folder(path_);
}

}  // namespace red::data

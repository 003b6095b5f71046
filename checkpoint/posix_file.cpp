#include "checkpoint/posix_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/watch.hpp"

namespace red::checkpoint {
namespace {

/// Of one system call: what comes behind is read ahead meanwhile.
constexpr std::size_t kReadBytes = std::size_t{1} << 20;

[[noreturn]] void fail(const std::string& what, const std::filesystem::path& path, int error) {
  throw IoError("cannot {} '{}': {} (errno {})", what, path.string(), std::strerror(error), error);
}

void check(bool ok, const std::string& what, const std::filesystem::path& path) {
  if (!ok) fail(what, path, errno);
}

/// Of a call that was given a path: nothing is there.
bool says_nothing_there(int error) {
  return error == ENOENT || error == ENOTDIR;
}

}  // namespace

PosixFile PosixFile::create(const std::filesystem::path& path) {
  const watch::BlockingPoint creating("creating", path.native());
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  check(descriptor >= 0, "create", path);
  return {descriptor, path};
}

PosixFile PosixFile::open(const std::filesystem::path& path) {
  const watch::BlockingPoint opening("opening", path.native());
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  check(descriptor >= 0, "open", path);
  return {descriptor, path};
}

std::optional<PosixFile> PosixFile::open_if_there(const std::filesystem::path& path) {
  const watch::BlockingPoint opening("opening", path.native());
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0 && says_nothing_there(errno)) return std::nullopt;
  check(descriptor >= 0, "open", path);
  return PosixFile(descriptor, path);
}

PosixFile::PosixFile(PosixFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      path_(std::move(other.path_)),
      ahead_(other.ahead_) {}

PosixFile& PosixFile::operator=(PosixFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(path_, other.path_);
  std::swap(ahead_, other.ahead_);
  return *this;
}

PosixFile::~PosixFile() {
  if (descriptor_ >= 0 && ::close(descriptor_) != 0)
    log::rank_warning("cannot close '{}': {}", path_.string(), std::strerror(errno));
}

uint64_t PosixFile::num_bytes() const {
  struct stat status {};
  check(::fstat(descriptor_, &status) == 0, "look at", path_);
  return static_cast<uint64_t>(status.st_size);
}

void PosixFile::reserve(uint64_t num_bytes) const {
  const watch::BlockingPoint reserving("reserving space for", path_.native());
  // fallocate, not posix_fallocate: where the file system has no such call, glibc writes a byte into every
  // block, which takes longer than the checkpoint itself.
  int result = 0;
  do {
    result = ::fallocate(descriptor_, 0, 0, static_cast<off_t>(num_bytes));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && errno != EOPNOTSUPP && errno != ENOSYS)
    fail(fmt::format("reserve {} bytes for", num_bytes), path_, errno);
}

void PosixFile::write_at(uint64_t offset, const void* data, std::size_t num_bytes) const {
  const char* next = static_cast<const char*>(data);
  while (num_bytes > 0) {
    const watch::BlockingPoint writing("writing", path_.native());
    const ssize_t written = ::pwrite(descriptor_, next, num_bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    // Nothing written and no error: POSIX leaves that open; a full device is the only likely reason.
    if (written <= 0)
      fail(fmt::format("write {} bytes at {} of", num_bytes, offset), path_, written == 0 ? ENOSPC : errno);
    next += written;
    offset += static_cast<uint64_t>(written);
    num_bytes -= static_cast<std::size_t>(written);
  }
}

void PosixFile::read_at(uint64_t offset, void* data, std::size_t num_bytes) const {
  char* next = static_cast<char*>(data);
  while (num_bytes > 0) {
    const watch::BlockingPoint reading("reading", path_.native());
    const std::size_t piece = std::min(num_bytes, kReadBytes);
    ahead_.before(descriptor_, offset, piece);
    const ssize_t got = ::pread(descriptor_, next, piece, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(fmt::format("read {} bytes at {} of", num_bytes, offset), path_, errno);
    if (got == 0)
      throw DataError("'{}' ends at byte {}, {} bytes too early", path_.string(), offset, num_bytes);
    next += got;
    offset += static_cast<uint64_t>(got);
    num_bytes -= static_cast<std::size_t>(got);
  }
}

void PosixFile::begin_sync(uint64_t offset, std::size_t num_bytes) const noexcept {
  const watch::BlockingPoint syncing("beginning to sync", path_.native());
  // The result does not matter: what this call cannot do, fsync does, and says so when it fails.
  static_cast<void>(::sync_file_range(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(num_bytes),
                                      SYNC_FILE_RANGE_WRITE));
}

void PosixFile::forget_cached() const noexcept {
  static_cast<void>(::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED));
}

void PosixFile::sync() const {
  const watch::BlockingPoint syncing("syncing", path_.native());
  check(::fsync(descriptor_) == 0, "sync", path_);
}

void PosixFile::close() {
  const watch::BlockingPoint closing("closing", path_.native());
  check(::close(std::exchange(descriptor_, -1)) == 0, "close", path_);
}

namespace {

/// Of what a path leads to; nothing where nothing is there.
std::optional<struct stat> status_of(const std::filesystem::path& path) {
  const watch::BlockingPoint looking("looking at", path.native());
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return status;
  check(says_nothing_there(errno), "look at", path);
  return std::nullopt;
}

}  // namespace

PathKind kind_of(const std::filesystem::path& path) {
  const auto status = status_of(path);
  if (!status) return PathKind::nothing;
  if (S_ISREG(status->st_mode)) return PathKind::file;
  return S_ISDIR(status->st_mode) ? PathKind::folder : PathKind::other;
}

std::optional<uint64_t> size_if_there(const std::filesystem::path& path) {
  const auto status = status_of(path);
  if (!status || !S_ISREG(status->st_mode)) return std::nullopt;
  return static_cast<uint64_t>(status->st_size);
}

std::optional<std::string> read_text_if_there(const std::filesystem::path& path, std::size_t most_bytes) {
  const auto file = PosixFile::open_if_there(path);
  if (!file) return std::nullopt;
  std::string text(static_cast<std::size_t>(std::min<uint64_t>(most_bytes, file->num_bytes())), '\0');
  file->read_at(0, text.data(), text.size());
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
  const watch::BlockingPoint syncing("syncing folder", folder.native());
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  check(descriptor >= 0, "open folder", folder);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (result != 0) fail("sync folder", folder, error);
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  const watch::BlockingPoint renaming("renaming to", to.native());
  check(::rename(from.c_str(), to.c_str()) == 0, "rename '" + from.string() + "' to", to);
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::path aside = path;
  aside += ".partial";
  check(::unlink(aside.c_str()) == 0 || errno == ENOENT, "remove", aside);
  PosixFile file = PosixFile::create(aside);
  try {
    file.write_at(0, text.data(), text.size());
    file.sync();
    file.close();
    rename_path(aside, path);
  } catch (const IoError&) {
    static_cast<void>(::unlink(aside.c_str()));  // the first failure is the one to tell
    throw;
  }
  sync_folder(path.parent_path());
}

}  // namespace red::checkpoint

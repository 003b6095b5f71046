// A library to preload: makes one kind of call on files of checkpoints fail, as a bad disk would.
//   FAULT_CALL      pwrite, fsync, rename or fallocate
//   FAULT_ERRNO     what it fails with; 0: a pwrite writes only half, which is no error
//   FAULT_AFTER     so many calls go well first
//   FAULT_LASTS     1: every later call fails too; otherwise one alone
//   FAULT_RANK      the rank that it happens to
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {

int number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

bool is_here() {
  const char *wanted = std::getenv("FAULT_RANK"), *own = std::getenv("OMPI_COMM_WORLD_RANK");
  return wanted != nullptr && own != nullptr && std::strcmp(wanted, own) == 0;
}

/// Whether this call, of a file of a checkpoint, is to fail.
bool strikes(std::string_view call, std::string_view path) {
  static const bool here = is_here();
  static const char* const wanted = std::getenv("FAULT_CALL");
  if (!here || wanted == nullptr || call != wanted || path.find("/checkpoints/") == std::string_view::npos)
    return false;
  static std::atomic<int> calls{0};
  static const int after = number("FAULT_AFTER"), lasts = number("FAULT_LASTS");
  const int before = calls++;
  return lasts != 0 ? before >= after : before == after;
}

bool strikes(std::string_view call, int descriptor) {
  char link[64], path[4096];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", descriptor);
  const ssize_t length = readlink(link, path, sizeof(path));
  return length > 0 && strikes(call, std::string_view(path, static_cast<std::size_t>(length)));
}

template <class Function>
Function real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

int fails() {
  errno = number("FAULT_ERRNO");
  return -1;
}

}  // namespace

extern "C" {

ssize_t pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  static const auto call = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  if (!strikes("pwrite", descriptor)) return call(descriptor, data, size, offset);
  if (number("FAULT_ERRNO") == 0) return call(descriptor, data, size > 1 ? size / 2 : size, offset);
  return fails();
}

ssize_t pwrite64(int descriptor, const void* data, size_t size, off64_t offset) {
  return pwrite(descriptor, data, size, offset);
}

int fsync(int descriptor) {
  static const auto call = real<int (*)(int)>("fsync");
  return strikes("fsync", descriptor) ? fails() : call(descriptor);
}

int fallocate(int descriptor, int mode, off_t offset, off_t length) {
  static const auto call = real<int (*)(int, int, off_t, off_t)>("fallocate");
  return strikes("fallocate", descriptor) ? fails() : call(descriptor, mode, offset, length);
}

int fallocate64(int descriptor, int mode, off64_t offset, off64_t length) {
  return fallocate(descriptor, mode, offset, length);
}

int rename(const char* from, const char* to) {
  static const auto call = real<int (*)(const char*, const char*)>("rename");
  return strikes("rename", std::string_view(to)) ? fails() : call(from, to);
}

}  // extern "C"

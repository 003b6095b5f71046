// A library to preload: makes one kind of call fail, or never come back, as a bad disk, network or program
// would.
//   FAULT_CALL      open, stat, pwrite, pread, fsync, rename, mkdir or fallocate, of files with FAULT_PATH in
//                   their path; or MPI_Iprobe; or cos, which the learning rate takes once in a step; or
//                   MPI_Isend of fp32 gradients from stage to stage
//   FAULT_HOW       error (default); hang: the call waits for ever; deaf: the same without taking signals, as
//                   in a call of the system that nothing interrupts; spin: it computes for ever; kill: the
//                   process is killed in it; slow: it takes FAULT_MS (50) milliseconds longer, and goes well;
//                   nan: of MPI_Isend, a number of the message is none
//   FAULT_ERRNO     what it fails with; 0: a pwrite writes only half, which is no error
//   FAULT_PATH      part of the path (default: /checkpoints/)
//   FAULT_BYTE      of pread: only reads that hold this byte of the file
//   FAULT_WHEN      a file: nothing happens before it is there
//   FAULT_AFTER     so many calls go well first
//   FAULT_LASTS     1: every later call fails too; otherwise one alone
//   FAULT_RANK      the rank that it happens to; any of them; or all: every process, ranks or not
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string_view>

namespace {

int number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

bool is_here() {
  const char *wanted = std::getenv("FAULT_RANK"), *own = std::getenv("OMPI_COMM_WORLD_RANK");
  if (own == nullptr) own = std::getenv("PMIX_RANK");  // srun starts it
  if (wanted == nullptr) return false;
  if (std::strcmp(wanted, "all") == 0) return true;
  return own != nullptr && (std::strcmp(wanted, own) == 0 || std::strcmp(wanted, "any") == 0);
}

[[noreturn]] void never_return(std::string_view how) {
  if (how == "deaf") {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
  }
  if (how != "spin") {
    for (;;) pause();
  }
  for (std::atomic<std::uint64_t> turns{0};;) ++turns;
}

/// Whether this call is to fail. Does not come back where it is not to.
bool strikes(std::string_view call) {
  static const bool here = is_here();
  static const char* const wanted = std::getenv("FAULT_CALL");
  static const char* const when = std::getenv("FAULT_WHEN");
  if (!here || wanted == nullptr || call != wanted || (when != nullptr && access(when, F_OK) != 0))
    return false;
  static std::atomic<int> calls{0};
  static const int after = number("FAULT_AFTER"), lasts = number("FAULT_LASTS");
  const int before = calls++;
  if (lasts != 0 ? before < after : before != after) return false;
  static const std::string_view how =
      std::getenv("FAULT_HOW") == nullptr ? "error" : std::getenv("FAULT_HOW");
  if (how == "kill") kill(getpid(), SIGKILL);
  if (how == "slow")
    usleep(static_cast<useconds_t>(1000 * (number("FAULT_MS") != 0 ? number("FAULT_MS") : 50)));
  if (how == "hang" || how == "deaf" || how == "spin") never_return(how);
  return how == "error" || how == "nan";
}

bool strikes(std::string_view call, std::string_view path) {
  static const char* const part = std::getenv("FAULT_PATH");
  return path.find(part == nullptr ? "/checkpoints/" : part) != std::string_view::npos && strikes(call);
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

// NOLINTNEXTLINE(cert-dcl50-cpp): as it is declared
int open(const char* path, int flags, ...) {
  static const auto call = real<int (*)(const char*, int, mode_t)>("open");
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return strikes("open", std::string_view(path)) ? fails() : call(path, flags, mode);
}

// NOLINTNEXTLINE(cert-dcl50-cpp): as it is declared
int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open(path, flags | O_LARGEFILE, mode);
}

int stat(const char* path, struct stat* status) noexcept {
  static const auto call = real<int (*)(const char*, struct stat*)>("stat");
  return strikes("stat", std::string_view(path)) ? fails() : call(path, status);
}

int stat64(const char* path, struct stat64* status) noexcept {
  static const auto call = real<int (*)(const char*, struct stat64*)>("stat64");
  return strikes("stat", std::string_view(path)) ? fails() : call(path, status);
}

ssize_t pwrite(int descriptor, const void* data, size_t size, off_t offset) {
  static const auto call = real<ssize_t (*)(int, const void*, size_t, off_t)>("pwrite");
  if (!strikes("pwrite", descriptor)) return call(descriptor, data, size, offset);
  if (number("FAULT_ERRNO") == 0) return call(descriptor, data, size > 1 ? size / 2 : size, offset);
  return fails();
}

ssize_t pwrite64(int descriptor, const void* data, size_t size, off64_t offset) {
  return pwrite(descriptor, data, size, offset);
}

ssize_t pread(int descriptor, void* data, size_t size, off_t offset) {
  static const auto call = real<ssize_t (*)(int, void*, size_t, off_t)>("pread");
  static const char* const byte = std::getenv("FAULT_BYTE");
  const off_t wanted = byte == nullptr ? offset : std::atoll(byte);
  const bool holds = wanted >= offset && wanted < offset + static_cast<off_t>(size);
  return holds && strikes("pread", descriptor) ? fails() : call(descriptor, data, size, offset);
}

ssize_t pread64(int descriptor, void* data, size_t size, off64_t offset) {
  return pread(descriptor, data, size, offset);
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

int mkdir(const char* path, mode_t mode) {
  static const auto call = real<int (*)(const char*, mode_t)>("mkdir");
  return strikes("mkdir", std::string_view(path)) ? fails() : call(path, mode);
}

double cos(double x) {
  static const auto call = real<double (*)(double)>("cos");
  strikes("cos");
  return call(x);
}

// MPI's own types differ between libraries, but each is a pointer or an int.
// NOLINTNEXTLINE(readability-identifier-naming): MPI's name
int MPI_Iprobe(int source, int tag, void* comm, int* found, void* status) {
  static const auto call = real<int (*)(int, int, void*, int*, void*)>("MPI_Iprobe");
  strikes("MPI_Iprobe");
  return call(source, tag, comm, found, status);
}

// NOLINTNEXTLINE(readability-identifier-naming): MPI's name
int MPI_Isend(const void* data, int count, void* type, int peer, int tag, void* comm, void* request) {
  static const auto call = real<int (*)(const void*, int, void*, int, int, void*, void*)>("MPI_Isend");
  static const void* const fp32 = dlsym(RTLD_DEFAULT, "ompi_mpi_float");
  // parallel/message_tags.hpp: gradients of activations and of the encoder's output.
  const bool gradient = type == fp32 && (tag % 8 == 3 || tag % 8 == 4) && count > 0;
  if (gradient && strikes("MPI_Isend")) {
    static const float none = std::numeric_limits<float>::quiet_NaN();
    std::memcpy(const_cast<void*>(data), &none, sizeof(none));
  }
  return call(data, count, type, peer, tag, comm, request);
}

}  // extern "C"

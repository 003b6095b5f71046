#include "parallel/shared_ring.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <limits>
#include <string>

#include "parallel/mpi_check.hpp"
#include "parallel/one_machine.hpp"

namespace red::parallel {

/// The file is full of zeros when it is made, and so are these. Each has a cache line of its own, as its
/// owner writes it and everybody reads it.
struct SharedRing::Counters {     // NOLINT(clang-analyzer-optin.performance.Padding)
  uint64_t identity;              ///< drawn by the owner: a process may see others under the same numbers
  alignas(64) int64_t published;  ///< rounds that the owner has written
  alignas(64) int64_t read;       ///< rounds that the owner has read of all others
  alignas(64) Note notes[kSlots];
};

namespace {

constexpr const char* kFileName = "redllm";

/// Closes itself.
struct Descriptor {
  int number = -1;
  ~Descriptor() {
    if (number >= 0) close(number);
  }
};

/// 0, or what went wrong as errno has it.
int reserve_bytes(int descriptor, int64_t num_bytes) {
  int error = EINTR;
  while (error == EINTR) error = posix_fallocate(descriptor, 0, num_bytes);
  return error;
}

/// The largest of the ranks' errors; 0: none has one.
int failure_of_any(MPI_Comm comm, int error) {
  RED_MPI(MPI_Allreduce(MPI_IN_PLACE, &error, 1, MPI_INT, MPI_MAX, comm));
  return error;
}

/// Whether the path leads to a file of this kind: another process may have anything under that number.
bool is_ring(const std::string& path) {
  char target[64] = {};
  errno = 0;
  const ssize_t length = readlink(path.c_str(), target, sizeof(target) - 1);
  return length > 0 && std::string_view(target).starts_with(fmt::format("/memfd:{}", kFileName));
}

int64_t load(int64_t& counter) {
  return std::atomic_ref(counter).load(std::memory_order_acquire);
}

void store(int64_t& counter, int64_t value) {
  std::atomic_ref(counter).store(value, std::memory_order_release);
}

}  // namespace

std::unique_ptr<SharedRing> SharedRing::create(MPI_Comm comm, int64_t slot_bytes, std::string_view name,
                                               int& error) {
  int rank = 0, size = 0;
  RED_MPI(MPI_Comm_rank(comm, &rank));
  RED_MPI(MPI_Comm_size(comm, &size));
  error = 0;
  if (size == 1 || !on_one_machine(comm)) return nullptr;
  std::unique_ptr<SharedRing> ring(new SharedRing(name, rank, (slot_bytes + 63) / 64 * 64));

  // Reserved by whom it belongs to: a full machine is an error here and no signal later, and the pages are
  // near its core. The others open it by the descriptor's place in /proc, so that nothing is left behind.
  const Descriptor own{memfd_create(kFileName, MFD_CLOEXEC)};
  Place place{getpid(), own.number, 0};
  error = own.number < 0 ? errno : reserve_bytes(own.number, ring->bytes_of_rank());
  if (error == 0 && getrandom(&place.identity, sizeof(place.identity), 0) != sizeof(place.identity))
    error = errno;
  if (error == 0 && pwrite(own.number, &place.identity, sizeof(place.identity), 0) != sizeof(place.identity))
    error = errno;
  error = failure_of_any(comm, error);
  if (error == 0) {
    std::vector<Place> places(static_cast<std::size_t>(size));
    RED_MPI(MPI_Allgather(&place, sizeof(place), MPI_BYTE, places.data(), sizeof(place), MPI_BYTE, comm));
    error = failure_of_any(comm, ring->map(places));
  }
  if (error != 0) ring.reset();
  return ring;
}

int SharedRing::map(const std::vector<Place>& places) {
  const auto num_bytes = static_cast<std::size_t>(bytes_of_rank());
  for (const Place& place : places) {
    const std::string path = fmt::format("/proc/{}/fd/{}", place.process, place.descriptor);
    if (!is_ring(path)) return errno == EACCES || errno == EPERM ? errno : ESRCH;
    const Descriptor file{open(path.c_str(), O_RDWR | O_CLOEXEC)};
    if (file.number < 0) return errno;
    struct stat status {};
    if (fstat(file.number, &status) != 0) return errno;
    if (status.st_size != static_cast<off_t>(num_bytes)) return ESRCH;
    void* memory = mmap(nullptr, num_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, 0);
    if (memory == MAP_FAILED) return errno;
    memory_.push_back(static_cast<std::byte*>(memory));
    madvise(memory, num_bytes, MADV_DONTDUMP);
    if (static_cast<const Counters*>(memory)->identity != place.identity) return ESRCH;
  }
  return 0;
}

SharedRing::~SharedRing() {
  for (std::byte* memory : memory_) munmap(memory, static_cast<std::size_t>(bytes_of_rank()));
}

int64_t SharedRing::bytes_of_rank() const {
  return static_cast<int64_t>(sizeof(Counters)) + kSlots * slot_bytes_;
}

int64_t SharedRing::reserve(int64_t count) {
  const int64_t first = reserved_;
  reserved_ += count;
  return first;
}

bool SharedRing::may_publish(int64_t round) {
  if (published_ != round || read_ <= round - kSlots) return false;
  if (all_read_ > round - kSlots) return true;
  all_read_ = std::numeric_limits<int64_t>::max();
  for (std::size_t r = 0; r < memory_.size(); ++r) {
    if (static_cast<int>(r) != rank_)
      all_read_ = std::min(all_read_, load(reinterpret_cast<Counters*>(memory_[r])->read));
  }
  return all_read_ > round - kSlots;
}

void SharedRing::publish(int64_t round, const Note& note) {
  auto* own = reinterpret_cast<Counters*>(memory_[rank_]);
  own->notes[round % kSlots] = note;
  published_ = round + 1;
  store(own->published, published_);
}

bool SharedRing::may_read(int64_t round) {
  if (read_ != round || published_ <= round) return false;
  if (all_published_ > round) return true;
  all_published_ = std::numeric_limits<int64_t>::max();
  for (std::size_t r = 0; r < memory_.size(); ++r) {
    if (static_cast<int>(r) != rank_)
      all_published_ = std::min(all_published_, load(reinterpret_cast<Counters*>(memory_[r])->published));
  }
  return all_published_ > round;
}

void SharedRing::finish_reading(int64_t round) {
  read_ = round + 1;
  store(reinterpret_cast<Counters*>(memory_[rank_])->read, read_);
}

std::byte* SharedRing::slot(int rank, int64_t round) const {
  return memory_[rank] + sizeof(Counters) + round % kSlots * slot_bytes_;
}

const SharedRing::Note& SharedRing::note(int rank, int64_t round) const {
  return reinterpret_cast<const Counters*>(memory_[rank])->notes[round % kSlots];
}

}  // namespace red::parallel

#include "checkpoint/read_ahead.hpp"

#include <fcntl.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace red::checkpoint {
namespace {

/// The kernel takes no more of one request than it would read ahead by itself: 128 KiB unless it was told
/// otherwise.
constexpr uint64_t kRequestBytes = uint64_t{128} << 10;
constexpr uint64_t kHeaderBytes = uint64_t{64} << 10;

/// One thread of the process. Nobody waits for it: it may hang in a disk that does not answer when the
/// process ends.
class Requests {
 public:
  static Requests& of_process() {
    static auto* const requests = new Requests;  // never deleted: the thread never ends
    return *requests;
  }

  void add(int descriptor, uint64_t begin, uint64_t end) {
    const std::lock_guard lock(mutex_);
    for (; begin < end; begin += kRequestBytes) waiting_.push_back({descriptor, begin});
    while (waiting_.size() > kMostWaiting) waiting_.pop_front();  // whoever reads has overtaken it
    added_.notify_one();
  }

 private:
  static constexpr std::size_t kMostWaiting = ReadAhead::kMostBytes / kRequestBytes;
  struct Request {
    int descriptor;
    uint64_t offset;
  };

  Requests() {
    std::thread([this] { work(); }).detach();
  }

  [[noreturn]] void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      added_.wait(lock, [this] { return !waiting_.empty(); });
      const Request next = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      // The file may be closed by now, or another one: then some bytes are read for nothing, or none.
      static_cast<void>(::posix_fadvise(next.descriptor, static_cast<off_t>(next.offset), kRequestBytes,
                                        POSIX_FADV_WILLNEED));
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable added_;
  std::deque<Request> waiting_;
};

}  // namespace

void ReadAhead::before(int descriptor, uint64_t offset, std::size_t num_bytes) {
  if (offset < next_ || offset - next_ > kHeaderBytes) *this = {};
  next_ = offset + num_bytes;
  run_bytes_ += num_bytes;
  const uint64_t begin = std::max(asked_, next_), end = next_ + std::min(run_bytes_, kMostBytes);
  if (run_bytes_ < kLeastBytes || end < begin + kRequestBytes) return;
  asked_ = end;
  Requests::of_process().add(descriptor, begin, end);
}

}  // namespace red::checkpoint

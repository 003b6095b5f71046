#include "base/watch.hpp"

#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>

namespace red::watch {
namespace {

int64_t now_ns() noexcept {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// A call that may never return.
struct Call {
  const char* what = "";
  std::array<char, 240> file{};
  std::size_t length = 0;
};

constexpr std::size_t kMostNested = 4;

}  // namespace

struct Record {
  const char* name = "";
  pid_t id = 0;

  // Written by the thread, read by others.
  std::atomic<int64_t> moved_ns{now_ns()};
  std::atomic<int64_t> step{-1};
  std::atomic<const char*> what{nullptr};
  std::atomic<int> micro_batch{-1}, chunk{-1}, peer{-1};

  mutable std::mutex mutex;  ///< of the calls: waiting for a disk is slow anyway
  std::array<Call, kMostNested> calls;
  std::size_t num_calls = 0;  ///< deeper ones are only counted

  void move() noexcept { moved_ns.store(now_ns(), std::memory_order_relaxed); }

  Place place() const noexcept {
    return {what.load(std::memory_order_relaxed), micro_batch.load(std::memory_order_relaxed),
            chunk.load(std::memory_order_relaxed), peer.load(std::memory_order_relaxed)};
  }
  void set_place(const Place& place) noexcept {
    what.store(place.what, std::memory_order_relaxed);
    micro_batch.store(place.micro_batch, std::memory_order_relaxed);
    chunk.store(place.chunk, std::memory_order_relaxed);
    peer.store(place.peer, std::memory_order_relaxed);
    move();
  }
};

namespace {

struct List {
  std::mutex mutex;
  std::vector<std::unique_ptr<Record>> records;
  std::string process_place;
};

/// Never destroyed: a thread that hangs in the system may outlive main().
List& list() {
  static auto* const the_list = new List;
  return *the_list;
}

thread_local Record* t_own = nullptr;

std::string text_of(int64_t step, const Place& place) {
  std::string text;
  if (step >= 0) text = fmt::format("step {}", step);
  if (place.what == nullptr) return text;
  text += fmt::format("{}{}", text.empty() ? "" : ", ", place.what);
  if (place.micro_batch >= 0) text += fmt::format(" of micro-batch {}", place.micro_batch);
  if (place.chunk > 0) text += fmt::format(" in chunk {}", place.chunk);
  if (place.peer >= 0) {
    const bool sends = std::string_view(place.what).starts_with("send");
    text += fmt::format(" {} stage {}", sends ? "to" : "from", place.peer);
  }
  return text;
}

Doing doing_of(const Record& record) {
  Doing doing;
  doing.thread = record.name;
  doing.id = record.id;
  const Place place = record.place();
  doing.position = text_of(record.step.load(std::memory_order_relaxed), place);
  {
    const std::lock_guard lock(record.mutex);
    if (record.num_calls > 0) {
      const Call& call = record.calls[std::min(record.num_calls, kMostNested) - 1];
      doing.blocking = fmt::format("{} '{}'", call.what, std::string_view(call.file.data(), call.length));
    }
  }
  doing.computes = place.what != nullptr && doing.blocking.empty();
  doing.unmoved_s = 1e-9 * static_cast<double>(now_ns() - record.moved_ns.load(std::memory_order_relaxed));
  return doing;
}

}  // namespace

Thread::Thread(const char* name) {
  auto record = std::make_unique<Record>();
  record->name = name;
  record->id = static_cast<pid_t>(syscall(SYS_gettid));
  t_own = record.get();
  const std::lock_guard lock(list().mutex);
  list().records.push_back(std::move(record));
}

Thread::~Thread() {
  const std::lock_guard lock(list().mutex);
  std::erase_if(list().records, [](const auto& record) { return record.get() == t_own; });
  t_own = nullptr;
}

Activity::Activity(const char* what) noexcept : record_(t_own) {
  if (record_ == nullptr) return;
  before_ = record_->place();
  record_->set_place({what});
}

Activity::~Activity() {
  if (record_ != nullptr) record_->set_place(before_);
}

void Activity::now(const Place& place) noexcept {
  if (record_ != nullptr) record_->set_place(place);
}

BlockingPoint::BlockingPoint(const char* what, std::string_view file) noexcept : record_(t_own) {
  if (record_ == nullptr) return;
  const std::lock_guard lock(record_->mutex);
  if (record_->num_calls++ < kMostNested) {
    Call& call = record_->calls[record_->num_calls - 1];
    call.what = what;
    call.length = std::min(file.size(), call.file.size());
    // Of a long name the end says more.
    std::copy_n(file.end() - static_cast<std::ptrdiff_t>(call.length), call.length, call.file.begin());
  }
  record_->move();
}

BlockingPoint::~BlockingPoint() {
  if (record_ == nullptr) return;
  const std::lock_guard lock(record_->mutex);
  --record_->num_calls;
  record_->move();
}

void at_step(int64_t step) noexcept {
  if (t_own != nullptr) t_own->step.store(step, std::memory_order_relaxed);
}

void set_process_place(std::string place) {
  const std::lock_guard lock(list().mutex);
  list().process_place = std::move(place);
}

std::vector<Doing> look() {
  const std::lock_guard lock(list().mutex);
  std::vector<Doing> all;
  for (const auto& record : list().records) all.push_back(doing_of(*record));
  return all;
}

std::string process_place() {
  const std::lock_guard lock(list().mutex);
  return list().process_place.empty() ? "" : fmt::format(" ({})", list().process_place);
}

}  // namespace red::watch

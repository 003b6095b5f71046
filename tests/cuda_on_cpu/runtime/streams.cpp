#include "runtime/streams.hpp"

#include <sched.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "runtime/device_memory.hpp"
#include "runtime/failure.hpp"
#include "runtime/options.hpp"

namespace cuda_on_cpu {
Streams& streams() {
  static auto& instance = *new Streams;  // streams may be destroyed late
  return instance;
}

Streams::Streams() : random_(options().seed) {}

CUstream_st* Streams::create() {
  streams_.push_back(new CUstream_st);
  return streams_.back();
}

void Streams::destroy(CUstream_st* stream) {
  check(stream);
  while (drive(stream)) {
  }
  stream->destroyed = !stream->queue.empty();
  if (stream->destroyed) return;
  std::erase(streams_, stream);
  delete stream;
}

void Streams::check(CUstream_st* stream) const {
  if (stream == nullptr) fail("use of the default stream: the backend must name its own");
  if (std::find(streams_.begin(), streams_.end(), stream) == streams_.end() || stream->destroyed)
    fail("use of a stream that does not exist, or not any more");
}

void Streams::push(CUstream_st* stream, Operation operation) {
  check(stream);
  stream->queue.push_back(std::move(operation));
  run_eagerly();
  nudge();
}

/// Everything that can run does, if the order is eager. Transfers whose other side is not there stay.
void Streams::run_eagerly() {
  if (options().streams != StreamOrder::eager || running_) return;
  for (bool moved = true; moved;) {
    moved = false;
    for (CUstream_st* stream : streams_) {
      while (!stream->queue.empty() && run_one(stream)) moved = true;
    }
  }
}

/// The first of the queue, if it can run now; whether it is over.
bool Streams::run_one(CUstream_st* stream) {
  Operation& operation = stream->queue.front();
  switch (operation.kind) {
    case Operation::Kind::work: {
      const DeviceMemory::Open open;
      running_ = true;
      operation.work();
      running_ = false;
      break;
    }
    case Operation::Kind::transfer: {
      const DeviceMemory::Open open;
      running_ = true;
      const bool over = operation.step();
      running_ = false;
      if (!over) return false;
      break;
    }
    case Operation::Kind::record:
      operation.event->reached = operation.generation;
      operation.event->time = std::chrono::steady_clock::now() + pretended_;
      break;
    case Operation::Kind::wait:
      if (operation.event->reached < operation.generation) return false;
      break;
  }
  stream->queue.pop_front();
  return true;
}

/// One operation that this stream's next one needs, or that one itself; whether it is over.
bool Streams::drive(CUstream_st* stream) {
  for (std::size_t hops = 0; hops <= streams_.size(); ++hops) {
    if (stream->queue.empty()) return false;
    const Operation& next = stream->queue.front();
    if (next.kind != Operation::Kind::wait || next.event->reached >= next.generation) return run_one(stream);
    stream = next.source;
  }
  fail("streams wait for each other in a circle");
}

/// What a GPU would do beside while one stream waits for another process. Nothing else runs: so what is not
/// ordered behind a transfer stays as late as it can be.
bool Streams::drive_transfers() {
  bool moved = false;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    const auto& queue = streams_[i]->queue;
    const bool has_transfer = std::any_of(queue.begin(), queue.end(), [](const Operation& operation) {
      return operation.kind == Operation::Kind::transfer;
    });
    if (has_transfer) moved = drive(streams_[i]) || moved;
  }
  return moved;
}

template <class Done>
void Streams::run_towards(CUstream_st* stream, const Done& done) {
  using Clock = std::chrono::steady_clock;
  constexpr int patience = 20;  // turns in which nothing but the stream itself moves
  const DeviceMemory::Open once_for_all;
  Clock::time_point moved = Clock::now();
  for (int turn = 0; !done(); ++turn) {
    if (drive(stream)) {
      turn = 0;
      moved = Clock::now();
      continue;
    }
    if (turn > patience && drive_transfers()) moved = Clock::now();
    if (Clock::now() - moved > std::chrono::seconds(options().stuck_s)) tell_stuck();
    sched_yield();
  }
}

void Streams::tell_stuck() const {
  std::string text;
  for (std::size_t i = 0; i < streams_.size(); ++i) {
    if (streams_[i]->queue.empty()) continue;
    static constexpr std::array<const char*, 4> names = {"work", "a record", "a wait", "a transfer"};
    text += fmt::format("; stream {} has {} operations, first {}", i, streams_[i]->queue.size(),
                        names[static_cast<std::size_t>(streams_[i]->queue.front().kind)]);
  }
  fail("a transfer's other side does not come{}", text);
}

void Streams::run_all(CUstream_st* stream) {
  check(stream);
  run_towards(stream, [&] { return stream->queue.empty(); });
}

/// How many operations are before that record, which was not reached.
std::size_t Streams::before(const CUevent_st& event, uint64_t generation, const CUstream_st& stream) {
  const auto found = std::find_if(stream.queue.begin(), stream.queue.end(), [&](const Operation& operation) {
    return operation.kind == Operation::Kind::record && operation.event == &event &&
           operation.generation == generation;
  });
  return static_cast<std::size_t>(found - stream.queue.begin());
}

/// A transfer is among the first `count` operations, or in other streams before what these wait for.
void Streams::refuse_transfers(CUstream_st* stream, std::size_t count) {
  std::map<CUstream_st*, std::size_t> seen;
  std::vector<std::pair<CUstream_st*, std::size_t>> left{{stream, count}};
  while (!left.empty()) {
    const auto [of, end] = left.back();
    left.pop_back();
    for (std::size_t& i = seen[of]; i < end; ++i) {
      const Operation& next = of->queue[i];
      if (next.kind == Operation::Kind::transfer)
        fail("the host waits inside CUDA for another process, and would never see that it is lost");
      if (next.kind == Operation::Kind::wait && next.event->reached < next.generation)
        left.emplace_back(next.source, before(*next.event, next.generation, *next.source));
    }
  }
}

void Streams::wait_for(CUstream_st* stream) {
  check(stream);
  refuse_transfers(stream, stream->queue.size());
  run_all(stream);
}

void Streams::wait_for(const CUevent_st& event) {
  if (event.reached >= event.recorded) return;
  refuse_transfers(event.stream, before(event, event.recorded, *event.stream));
  run_towards(event.stream, [&] { return event.reached >= event.recorded; });
}

void Streams::run_all() {
  for (std::size_t i = 0; i < streams_.size(); ++i)
    run_towards(streams_[i], [&] { return streams_[i]->queue.empty(); });
}

bool Streams::idle(CUstream_st* stream) const {
  check(stream);
  return stream->queue.empty();
}

void Streams::nudge() {
  if (options().streams != StreamOrder::random || running_) return;
  for (uint64_t left = random_() % 4; left > 0 && !streams_.empty(); --left) {
    CUstream_st* stream = streams_[random_() % streams_.size()];
    if (!stream->queue.empty()) drive(stream);
  }
}

void Streams::asked(CUstream_st* stream) {
  check(stream);
  run_eagerly();
  nudge();
  if (++stream->questions % 3 != 0 || stream->queue.empty() || drive(stream)) return;
  drive_transfers();
}

}  // namespace cuda_on_cpu

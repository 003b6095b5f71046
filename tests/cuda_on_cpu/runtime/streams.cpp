#include "runtime/streams.hpp"

#include <algorithm>

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
  run_all(stream);
  std::erase(streams_, stream);
  delete stream;
}

void Streams::check(CUstream_st* stream) const {
  if (stream == nullptr) fail("use of the default stream: the backend must name its own");
  if (std::find(streams_.begin(), streams_.end(), stream) == streams_.end())
    fail("use of a stream that does not exist, or not any more");
}

void Streams::push(CUstream_st* stream, Operation operation) {
  check(stream);
  stream->queue.push_back(std::move(operation));
  if (options().streams == StreamOrder::eager) run_all(stream);
  nudge();
}

void Streams::run_one(CUstream_st* stream) {
  const Operation operation = std::move(stream->queue.front());
  stream->queue.pop_front();
  switch (operation.kind) {
    case Operation::Kind::work: {
      const DeviceMemory::Open open;
      running_ = true;
      operation.work();
      running_ = false;
      break;
    }
    case Operation::Kind::record:
      operation.event->reached = operation.generation;
      operation.event->time = std::chrono::steady_clock::now();
      break;
    case Operation::Kind::wait:
      run_until(*operation.event, operation.generation);
      break;
  }
}

void Streams::run_all(CUstream_st* stream) {
  check(stream);
  const DeviceMemory::Open once_for_all;
  while (!stream->queue.empty()) run_one(stream);
}

void Streams::run_all() {
  for (CUstream_st* stream : streams_) run_all(stream);
}

void Streams::run_until(const CUevent_st& event, uint64_t generation) {
  if (event.reached >= generation) return;
  const DeviceMemory::Open once_for_all;
  while (event.reached < generation) run_one(event.stream);
}

bool Streams::idle(CUstream_st* stream) const {
  check(stream);
  return stream->queue.empty();
}

void Streams::nudge() {
  if (options().streams != StreamOrder::random || running_) return;
  for (uint64_t left = random_() % 4; left > 0 && !streams_.empty(); --left) {
    CUstream_st* stream = streams_[random_() % streams_.size()];
    if (!stream->queue.empty()) run_one(stream);
  }
}

}  // namespace cuda_on_cpu

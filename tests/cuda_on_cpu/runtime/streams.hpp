// Streams as queues. What an operation of the host allows to run, runs as options().streams says; what it
// does not allow never does.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <random>
#include <vector>

/// An event: how often it was recorded, and how many of these records were reached.
struct CUevent_st {
  CUstream_st* stream = nullptr;
  uint64_t recorded = 0, reached = 0;
  std::chrono::steady_clock::time_point time;
  bool timing = true;
};

namespace cuda_on_cpu {

/// One entry of a queue: work, or a record of an event, or a wait for one.
struct Operation {
  enum class Kind { work, record, wait };
  Kind kind = Kind::work;
  std::function<void()> work;
  CUevent_st* event = nullptr;
  uint64_t generation = 0;  ///< the record meant
};

class Streams {
 public:
  Streams();

  CUstream_st* create();
  /// Runs what is left in it.
  void destroy(CUstream_st* stream);
  /// Ends the program for the default stream: the backend names its stream.
  void push(CUstream_st* stream, Operation operation);
  void push(CUstream_st* stream, std::function<void()> work) {
    push(stream, {Operation::Kind::work, std::move(work), nullptr, 0});
  }
  void run_all(CUstream_st* stream);
  void run_all();
  void run_until(const CUevent_st& event, uint64_t generation);
  bool idle(CUstream_st* stream) const;
  /// Runs something that may run now, or nothing, if the order is random: wherever the host calls in.
  void nudge();

 private:
  void check(CUstream_st* stream) const;
  void run_one(CUstream_st* stream);

  std::vector<CUstream_st*> streams_;
  std::mt19937_64 random_;
  bool running_ = false;
};

Streams& streams();

}  // namespace cuda_on_cpu

struct CUstream_st {
  std::deque<cuda_on_cpu::Operation> queue;
};

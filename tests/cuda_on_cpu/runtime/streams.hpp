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

/// One entry of a queue: work, or a record of an event, or a wait for one, or a transfer, which needs another
/// process and is over when it says so.
struct Operation {
  enum class Kind { work, record, wait, transfer };
  explicit Operation(Kind what) : kind(what) {}

  Kind kind;
  std::function<void()> work;
  std::function<bool()> step;  ///< of a transfer: moves on as far as it can; whether it is over
  CUevent_st* event = nullptr;
  uint64_t generation = 0;        ///< the record meant
  CUstream_st* source = nullptr;  ///< of a wait: where that record is
};

class Streams {
 public:
  Streams();

  CUstream_st* create();
  /// Waits for nothing: what is left in it and needs another process stays in its order, and nothing is
  /// added.
  void destroy(CUstream_st* stream);
  /// Ends the program for the default stream: the backend names its stream.
  void push(CUstream_st* stream, Operation operation);
  void push(CUstream_st* stream, std::function<void()> work) {
    Operation operation(Operation::Kind::work);
    operation.work = std::move(work);
    push(stream, std::move(operation));
  }
  void push_transfer(CUstream_st* stream, std::function<bool()> step) {
    Operation operation(Operation::Kind::transfer);
    operation.step = std::move(step);
    push(stream, std::move(operation));
  }
  /// Events are that much later from now on: work that runs pretends to have taken long.
  void pretend(std::chrono::steady_clock::duration time) { pretended_ += time; }
  void run_all(CUstream_st* stream);
  void run_all();
  /// The host waits inside CUDA for a stream, or for an event's last record. Ends the program where that
  /// needs another process: nobody would see that it is lost.
  void wait_for(CUstream_st* stream);
  void wait_for(const CUevent_st& event);
  bool idle(CUstream_st* stream) const;
  /// Runs something that may run now, or nothing, if the order is random: wherever the host calls in.
  void nudge();
  /// The host asks whether a stream has come somewhere: who asks often enough sees it come, in every order.
  void asked(CUstream_st* stream);

 private:
  void check(CUstream_st* stream) const;
  static std::size_t before(const CUevent_st& event, uint64_t generation, const CUstream_st& stream);
  static void refuse_transfers(CUstream_st* stream, std::size_t count);
  bool run_one(CUstream_st* stream);
  bool drive(CUstream_st* stream);
  bool drive_transfers();
  void run_eagerly();
  template <class Done>
  void run_towards(CUstream_st* stream, const Done& done);
  [[noreturn]] void tell_stuck() const;

  std::vector<CUstream_st*> streams_;
  std::mt19937_64 random_;
  bool running_ = false;
  std::chrono::steady_clock::duration pretended_{};
};

Streams& streams();

}  // namespace cuda_on_cpu

struct CUstream_st {
  uint64_t questions = 0;  ///< whether it has come somewhere
  bool destroyed = false;
  std::deque<cuda_on_cpu::Operation> queue;
};

// What a rank did when, for a trace that people look at: slices of its time, one inside the other, and
// transfers that go on beside them. Only the main thread writes. Without a log nothing is recorded and
// nothing costs.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace red::parallel {

struct TraceSlice {
  std::string_view category;  ///< a literal: "step", "phase", "pipeline", "wait"
  std::string name;
  double begin = 0.0, end = 0.0;  ///< seconds of TraceLog::now()
};

/// A message or a collective, from the call that began it to the moment when it was seen to be done.
struct TraceTransfer {
  std::string name;   ///< "send", "all-reduce", ...
  std::string peers;  ///< the communicator and, of a message, the other rank
  int64_t num_bytes = 0;
  std::string message;  ///< of a message: the same text at both ends, and no other's; else empty
  bool sends = false;
  double begin = 0.0, end = 0.0;
};

class TraceLog {
 public:
  /// This host's steady clock, seconds.
  static double now() { return seconds(std::chrono::steady_clock::now()); }
  static double seconds(std::chrono::steady_clock::time_point time) {
    return std::chrono::duration<double>(time.time_since_epoch()).count();
  }

  bool on() const { return on_; }
  void start();
  /// Transfers that are still under way end now.
  void stop();

  void slice(std::string_view category, std::string name, double begin, double end) {
    if (on_) slices_.push_back({category, std::move(name), begin, end});
  }
  /// Begins now. Returns its number, for end_transfer().
  int64_t begin_transfer(TraceTransfer transfer);
  void end_transfer(int64_t number);

  const std::vector<TraceSlice>& slices() const { return slices_; }
  const std::vector<TraceTransfer>& transfers() const { return transfers_; }

 private:
  bool on_ = false;
  std::vector<TraceSlice> slices_;
  std::vector<TraceTransfer> transfers_;
};

}  // namespace red::parallel

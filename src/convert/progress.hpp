// Tells how far a conversion is: a line in the log every few seconds, and one at the end.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace red::convert {

class Progress {
 public:
  /// `what`: "exporting runs/mine". Bytes are counted as they are read.
  Progress(std::string what, uint64_t total_bytes);
  void add(uint64_t num_bytes);
  void finish() const;

 private:
  using Clock = std::chrono::steady_clock;
  std::string what_;
  uint64_t total_, done_ = 0;
  Clock::time_point begin_ = Clock::now(), told_ = begin_;
};

}  // namespace red::convert

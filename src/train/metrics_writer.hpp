// One thread that writes metrics, so that no step waits for a disk. Steps hand records to a queue of bounded
// length and go on; where a disk stands still until the queue is full, further records are dropped and
// counted: waiting would stall all ranks, and a longer queue only moves the limit.
#pragma once

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "train/metrics.hpp"

namespace red::train {

struct MetricsWriterOptions {
  std::size_t capacity = 1024;                                    ///< records that wait
  std::chrono::milliseconds patience = std::chrono::seconds(10);  ///< how long the end waits for them
};

class MetricsWriter {
 public:
  explicit MetricsWriter(std::vector<std::unique_ptr<MetricsSink>> sinks,
                         const MetricsWriterOptions& options = {});
  /// Waits for what is queued, no longer than `patience`; what is lost then, is said.
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  /// Never waits for a sink. A sink that fails is tried again with every record; the log names the failure
  /// once, and once that it is over and what it cost.
  void push(StepMetrics metrics);

  int64_t num_dropped() const;  ///< records that found the queue full

 private:
  struct State;
  static void work(State& state);

  MetricsWriterOptions options_;
  std::shared_ptr<State> state_;  ///< the thread's too: it may outlive a writer that lost patience
  std::thread thread_;
};

}  // namespace red::train

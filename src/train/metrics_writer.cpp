#include "train/metrics_writer.hpp"

#include <condition_variable>
#include <deque>
#include <mutex>

#include "base/log.hpp"

namespace red::train {
namespace {

/// A sink and how it has been doing.
class WatchedSink {
 public:
  explicit WatchedSink(std::unique_ptr<MetricsSink> sink) : sink_(std::move(sink)) {}

  void write(const StepMetrics& metrics) {
    try {
      sink_->write(metrics);
    } catch (const std::exception& error) {
      if (num_lost_++ == 0)
        log::warning("metrics of step {} are lost: {}; the run goes on, and every further record is tried",
                     metrics.step, error.what());
      return;
    }
    if (num_lost_ > 0)
      log::warning("{}: written again from step {} on; {} record(s) before it are lost", sink_->name(),
                   metrics.step, num_lost_);
    num_lost_ = 0;
  }

  void report_end() const {
    if (num_lost_ > 0)
      log::warning("{}: the last {} record(s) could not be written", sink_->name(), num_lost_);
  }

 private:
  std::unique_ptr<MetricsSink> sink_;
  int64_t num_lost_ = 0;  ///< since it last worked
};

}  // namespace

struct MetricsWriter::State {
  std::vector<WatchedSink> sinks;  ///< the thread's alone
  std::mutex mutex;                ///< of what follows; held for moments, never while a sink writes
  std::condition_variable changed;
  std::deque<StepMetrics> queue;
  int64_t num_dropped = 0;
  int64_t num_dropped_now = 0;  ///< of them, those that the log has not counted yet
  bool closing = false, finished = false;
};

MetricsWriter::MetricsWriter(std::vector<std::unique_ptr<MetricsSink>> sinks,
                             const MetricsWriterOptions& options)
    : options_(options), state_(std::make_shared<State>()) {
  for (auto& sink : sinks) state_->sinks.emplace_back(std::move(sink));
  thread_ = std::thread([state = state_] { work(*state); });
}

MetricsWriter::~MetricsWriter() {
  std::unique_lock lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
  if (state_->changed.wait_for(lock, options_.patience, [&] { return state_->finished; })) {
    lock.unlock();
    thread_.join();
    return;
  }
  const std::size_t waiting = state_->queue.size() + 1;  // and the one that is being written
  state_->queue.clear();
  lock.unlock();
  log::warning("metrics: a disk does not answer; {} record(s) are given up", waiting);
  thread_.detach();
}

void MetricsWriter::push(StepMetrics metrics) {
  const int64_t step = metrics.step;
  bool first_drop = false;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->queue.size() < options_.capacity) {
      state_->queue.push_back(std::move(metrics));
    } else {
      ++state_->num_dropped;
      first_drop = ++state_->num_dropped_now == 1;
    }
  }
  state_->changed.notify_all();
  if (first_drop)
    log::warning("metrics: {} records wait for a disk; those from step {} on are dropped until it answers",
                 options_.capacity, step);
}

int64_t MetricsWriter::num_dropped() const {
  const std::lock_guard lock(state_->mutex);
  return state_->num_dropped;
}

void MetricsWriter::work(State& state) {
  std::unique_lock lock(state.mutex);
  for (;;) {
    state.changed.wait(lock, [&] { return state.closing || !state.queue.empty(); });
    if (state.queue.empty()) break;
    const StepMetrics metrics = std::move(state.queue.front());
    state.queue.pop_front();
    // Said when the backlog is gone: a disk that is merely slow would have it said with every record.
    const int64_t dropped = state.queue.empty() ? std::exchange(state.num_dropped_now, 0) : 0;
    lock.unlock();
    if (dropped > 0) log::warning("metrics: {} record(s) were dropped; the disk answers again", dropped);
    for (WatchedSink& sink : state.sinks) sink.write(metrics);
    lock.lock();
  }
  for (const WatchedSink& sink : state.sinks) sink.report_end();
  state.finished = true;
  state.changed.notify_all();
}

}  // namespace red::train

// Work on a stream by several threads, results in the stream's order. The calling thread reads and writes,
// the workers compute; how much is under way is bounded by weight, so memory is too.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace red::data {

template <class In, class Out>
class OrderedPipeline {
 public:
  struct Stages {
    std::function<std::optional<In>()> produce;        ///< the next item, or none at the end
    std::function<int64_t(const In&)> weight;          ///< for instance bytes
    std::function<Out(int worker, In& item)> process;  ///< on any thread, several at once
    std::function<void(Out&&)> consume;                ///< in the order of produce
  };

  OrderedPipeline(int num_workers, int64_t max_weight, Stages stages)
      : max_weight_(max_weight), stages_(std::move(stages)) {
    for (int worker = 0; worker < num_workers; ++worker)
      workers_.emplace_back([this, worker] { work(worker); });
  }
  ~OrderedPipeline() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    new_item_.notify_all();
  }
  OrderedPipeline(const OrderedPipeline&) = delete;
  OrderedPipeline& operator=(const OrderedPipeline&) = delete;

  /// Everything, once. An exception of any stage ends it; a worker's comes at its item's place in the order,
  /// so that the same input always fails in the same way.
  void run() {
    bool more = true;
    while (more || !under_way_.empty()) {
      while (more && (weight_ < max_weight_ || under_way_.empty())) {
        std::optional<In> item = stages_.produce();
        more = item.has_value();
        if (more) submit(std::move(*item));
      }
      if (!under_way_.empty()) finish_front();
    }
  }

 private:
  struct Slot {
    In item;
    int64_t weight;
    std::optional<Out> out;
    std::exception_ptr error;
    bool done = false;
  };

  void submit(In item) {
    const int64_t weight = stages_.weight(item);
    auto slot = std::make_shared<Slot>(Slot{std::move(item), weight, {}, {}, false});
    weight_ += weight;
    under_way_.push_back(slot);
    {
      const std::lock_guard lock(mutex_);
      waiting_.push_back(std::move(slot));
    }
    new_item_.notify_one();
  }

  void finish_front() {
    const std::shared_ptr<Slot> slot = std::move(under_way_.front());
    under_way_.pop_front();
    {
      std::unique_lock lock(mutex_);
      item_done_.wait(lock, [&] { return slot->done; });
    }
    if (slot->error) std::rethrow_exception(slot->error);
    stages_.consume(std::move(*slot->out));
    weight_ -= slot->weight;
  }

  void work(int worker) {
    for (;;) {
      std::shared_ptr<Slot> slot;
      {
        std::unique_lock lock(mutex_);
        new_item_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
        if (stop_) return;
        slot = std::move(waiting_.front());
        waiting_.pop_front();
      }
      try {
        slot->out = stages_.process(worker, slot->item);
      } catch (...) {
        slot->error = std::current_exception();
      }
      {
        const std::lock_guard lock(mutex_);
        slot->done = true;
      }
      item_done_.notify_one();
    }
  }

  int64_t max_weight_, weight_ = 0;
  Stages stages_;
  std::deque<std::shared_ptr<Slot>> under_way_;  ///< of the calling thread: submitted, not consumed
  std::mutex mutex_;                             ///< of what follows
  std::condition_variable new_item_, item_done_;
  std::deque<std::shared_ptr<Slot>> waiting_;
  bool stop_ = false;
  std::vector<std::jthread> workers_;
};

}  // namespace red::data

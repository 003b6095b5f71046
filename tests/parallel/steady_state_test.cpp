// What a training step relies on: no memory is taken once the pools are warm, and transfers move while the
// rank computes, if it polls.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <vector>

#include "device/buffer.hpp"
#include "parallel/mpi_environment.hpp"

namespace {

thread_local int64_t t_num_news = 0;  // of this thread: the abort channel's own thread may allocate

}  // namespace

// Not inlined: GCC would take new and free for a pair that does not match.
[[gnu::noinline]] void* operator new(std::size_t size) {
  ++t_num_news;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept {
  std::free(p);
}
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept {
  std::free(p);
}

namespace red::parallel {
namespace {

/// The communication of a step: buckets in flight at once, sums of scalars, messages between stages.
class Step {
 public:
  explicit Step(Communicator& world)
      : world_(world),
        pairs_(world.split(world.rank() / 2, world.rank(), "pair")),
        send_(kBuckets),
        gradient_(kBuckets) {
    for (int b = 0; b < kBuckets; ++b) {
      send_[b].resize(kChunk * world.size());
      gradient_[b].resize(kChunk);
    }
    scalars_.resize(3);
    norms_.resize(50000);
    message_.resize(30000);
    requests_.reserve(2 * kBuckets + 2);
  }

  void run() {
    for (int b = 0; b < kBuckets; ++b)
      requests_.push_back(world_.reduce_scatter(flat(gradient_[b]), rows(send_[b])));
    const int other = pairs_->rank() == 0 ? 1 : 0;
    if (pairs_->size() == 2) {
      requests_.push_back(pairs_->send(flat(scalars_), other, 1));
      requests_.push_back(pairs_->receive(flat(message_).row_range(0, 1).col_range(0, 3), other, 1));
    }
    wait_for_all();
    for (auto* x : {&scalars_, &norms_}) {
      requests_.push_back(world_.all_reduce(flat(*x), ReduceOp::max));
      requests_.push_back(pairs_->all_reduce(flat(*x), ReduceOp::max));
      wait_for_all();
    }
    for (int b = 0; b < kBuckets; ++b)
      requests_.push_back(world_.all_gather(rows(send_[b]), flat(gradient_[b])));
    wait_for_all();
    requests_.push_back(world_.broadcast(flat(scalars_), 0));
    requests_.push_back(pairs_->barrier());
    wait_for_all();
  }

 private:
  static constexpr int kBuckets = 3;
  static constexpr int64_t kChunk = 70001;

  static Tensor flat(std::vector<float>& v) {
    return make_tensor(v.data(), 1, static_cast<int64_t>(v.size()));
  }
  Tensor rows(std::vector<float>& v) const { return make_tensor(v.data(), world_.size(), kChunk); }
  void wait_for_all() {
    for (Request& request : requests_) world_.wait(request, "one of a step");
    requests_.clear();
  }

  Communicator& world_;
  std::unique_ptr<Communicator> pairs_;
  std::vector<std::vector<float>> send_, gradient_;
  std::vector<float> scalars_, norms_, message_;
  std::vector<Request> requests_;
};

/// Through shared memory, and by messages.
class SteadyState : public testing::TestWithParam<bool> {
 protected:
  static MpiOptions options() {
    MpiOptions options;
    options.shared_memory = GetParam();
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(SharedMemory, SteadyState, testing::Bool());

TEST_P(SteadyState, NothingIsAllocatedAfterTheSecondStep) {
  MpiEnvironment environment(options());
  Step step(environment.world());
  step.run();
  EXPECT_GT(t_num_news, 0);  // the counter counts
  step.run();
  const int64_t news = t_num_news;
  const std::size_t buffers = num_buffers_made();
  for (int i = 0; i < 20; ++i) step.run();
  EXPECT_EQ(t_num_news - news, 0);
  EXPECT_EQ(num_buffers_made(), buffers);
}

TEST_P(SteadyState, PollingHidesATransferThatWouldOtherwiseStandStill) {
  MpiEnvironment environment(options());
  Communicator& world = environment.world();
  if (world.size() == 1) return;
  const int64_t chunk = (int64_t{16} << 20) / 4 / world.size();  // 16 MiB in all
  std::vector<float> send(chunk * world.size(), 1.0F), sum(chunk);
  const Tensor rows = make_tensor(send.data(), world.size(), chunk), own = make_tensor(sum.data(), 1, chunk);
  Request request = world.reduce_scatter(own, rows);
  // Work without polling: sleep stands for it, so that ranks on one core work at once. Nothing moves.
  usleep(100000);
  EXPECT_FALSE(world.test(request));
  // Work in pieces, with a poll after each. Counted in calls, because time is at the mercy of the machine:
  // this many calls are spread over 2 s of computing, and no wait is ever entered.
  const double waited = world.wait_seconds();
  int calls = 0;
  for (; calls < 4000 && !world.test(request); ++calls) {
    usleep(500);
    world.poll();
  }
  EXPECT_TRUE(world.test(request)) << "after " << calls << " calls";
  EXPECT_EQ(world.wait_seconds(), waited);
  RecordProperty("poll_calls", calls);
  world.wait(request, "reduce-scatter that was hidden");
  EXPECT_EQ(sum.front(), static_cast<float>(world.size()));
  EXPECT_EQ(sum.back(), static_cast<float>(world.size()));
}

}  // namespace
}  // namespace red::parallel

#include "runtime/grid.hpp"

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "runtime/failure.hpp"
#include "runtime/fiber.hpp"
#include "runtime/race_hooks.hpp"
#include "runtime/ready_queue.hpp"
#include "runtime/shared_memory.hpp"
#include "shim/thread.hpp"

namespace cuda_on_cpu {

__thread ThreadContext* current_thread = nullptr;
__thread unsigned char* dynamic_shared_memory = nullptr;

namespace {

enum class State : uint8_t { fresh, ready, at_block_barrier, at_warp_operation, done };

struct Thread : ThreadContext {
  State state = State::fresh;
  Fiber* fiber = nullptr;
  Site site;  ///< where it waits
  bool vote = false;
  // Of a warp operation.
  WarpOperation operation = WarpOperation::sync;
  unsigned mask = 0;
  int source = 0;
  std::size_t num_bytes = 0;
  alignas(16) unsigned char in[16], out[16];
};

std::string place(const Thread& t) {
  return fmt::format("block ({},{},{}) thread {} at {}:{}", t.block_index.x, t.block_index.y, t.block_index.z,
                     t.index, t.site.file, t.site.line);
}

bool same_site(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

uint64_t volume(dim3 d) {
  return uint64_t{d.x} * d.y * d.z;
}

/// One block at a time. Fibers are reused: a thread that ends hands its fiber to the next fresh one, so a
/// kernel without barriers never switches.
class Scheduler {
 public:
  void run(const LaunchConfig& config, const std::function<void()>& body);
  BarrierVotes block_barrier(const Site& site, bool vote);
  void warp_operation(const Site& site, WarpOperation operation, unsigned mask, const void* in, void* out,
                      std::size_t num_bytes, int source);
  const GridStatistics& statistics() const { return statistics_; }

 private:
  void run_block(const LaunchConfig& config, uint64_t block);
  void live();
  void run_next();
  [[noreturn]] void fail_stuck() const;
  void make_ready(Thread& thread);
  void release_block();
  void check_lane(const Thread& me, const Thread& other) const;
  void release_warp(const Thread& me);
  Fiber& take_fiber();
  Thread& self() const { return static_cast<Thread&>(*current_thread); }

  std::vector<Thread> threads_;
  ReadyQueue<Thread> ready_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  Fiber main_;
  Fiber* running_ = nullptr;
  const std::function<void()>* body_ = nullptr;
  std::size_t num_done_ = 0, num_waiting_ = 0;
  std::array<unsigned, kMaxThreads / kWarpSize> waiting_lanes_{};  ///< of each warp, at warp operations
  BarrierVotes votes_{};
  std::mt19937_64 random_;
  GridStatistics statistics_;
};

/// Never destroyed: LeakSanitizer still finds the fibers when the program ends.
Scheduler& scheduler() {
  static auto& instance = *new Scheduler;
  return instance;
}

void Scheduler::run(const LaunchConfig& config, const std::function<void()>& body) {
  if (current_thread != nullptr) fail("a kernel launches a kernel, which the harness cannot run");
  body_ = &body;
  threads_.assign(volume(config.block), Thread());
  random_.seed(options().seed);
  std::vector<uint64_t> order(volume(config.grid));
  std::iota(order.begin(), order.end(), uint64_t{0});
  if (options().threads == ThreadOrder::reversed) std::reverse(order.begin(), order.end());
  SharedMemory shared(config.shared_bytes);
  dynamic_shared_memory = shared.data();
  race_begin_launch();
  for (const uint64_t block : order) {
    shared.forget();
    race_begin_block(shared.data(), config.shared_bytes);
    run_block(config, block);
  }
  dynamic_shared_memory = nullptr;
}

void Scheduler::run_block(const LaunchConfig& config, uint64_t block) {
  const dim3 grid = config.grid, dims = config.block;
  std::array<uint64_t, kMaxThreads / kWarpSize> priorities{};
  for (uint64_t& priority : priorities) priority = random_();
  ready_.reset(options().threads, priorities);
  num_done_ = num_waiting_ = 0;
  waiting_lanes_.fill(0);
  const uint3 block_index{static_cast<unsigned>(block % grid.x),
                          static_cast<unsigned>(block / grid.x % grid.y),
                          static_cast<unsigned>(block / (uint64_t{grid.x} * grid.y))};
  for (unsigned i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    thread.thread_index = {i % dims.x, i / dims.x % dims.y, i / (dims.x * dims.y)};
    thread.block_index = block_index;
    thread.block_dim = dims;
    thread.grid_dim = grid;
    thread.index = i;
    thread.state = State::fresh;
    thread.fiber = nullptr;
    ready_.push(thread);
  }
  running_ = &main_;
  run_next();
  ++statistics_.blocks;
  statistics_.threads += threads_.size();
}

/// What a fiber does for ever: run the fresh thread that it was given.
void Scheduler::live() {
  for (;;) {
    (*body_)();
    self().state = State::done;
    ++num_done_;
    idle_.push_back(running_);
    run_next();
  }
}

Fiber& Scheduler::take_fiber() {
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>([] { scheduler().live(); }));
    idle_.push_back(fibers_.back().get());
  }
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
}

/// Hands the CPU on; returns when the calling fiber gets it again.
void Scheduler::run_next() {
  Thread* next = ready_.pop();
  if (next == nullptr && num_done_ != threads_.size()) fail_stuck();
  if (next != nullptr && next->state == State::fresh) {
    next->fiber = &take_fiber();
    next->stack = next->fiber->stack();
    next->stack_bytes = Fiber::kStackBytes;
    next->state = State::ready;
  }
  current_thread = next;
  Fiber& from = *running_;
  Fiber& to = next == nullptr ? main_ : *next->fiber;
  if (&to == &from) return;
  running_ = &to;
  ++statistics_.switches;
  to.switch_from(from);
}

void Scheduler::fail_stuck() const {
  for (const Thread& thread : threads_) {
    if (thread.state == State::at_warp_operation)
      fail("a warp waits for lanes of mask {:#x} that never arrive: {}", thread.mask, place(thread));
  }
  for (const Thread& thread : threads_) {
    if (thread.state == State::at_block_barrier)
      fail("{} of {} threads never reach a barrier: {} waits", threads_.size() - num_waiting_,
           threads_.size(), place(thread));
  }
  fail("nobody can run, and nobody waits");
}

void Scheduler::make_ready(Thread& thread) {
  thread.state = State::ready;
  ready_.push(thread);
}

void Scheduler::release_block() {
  votes_ = {1, 0, 0};
  for (Thread& thread : threads_) {
    if (!same_site(thread.site, threads_.front().site))
      fail("threads of a block wait at different barriers: {}, {}", place(threads_.front()), place(thread));
    votes_.all = votes_.all != 0 && thread.vote ? 1 : 0;
    votes_.any = votes_.any != 0 || thread.vote ? 1 : 0;
    votes_.count += thread.vote ? 1 : 0;
    make_ready(thread);
  }
  num_waiting_ = 0;
  race_block_barrier();
}

BarrierVotes Scheduler::block_barrier(const Site& site, bool vote) {
  Thread& me = self();
  me.site = site;
  me.vote = vote;
  me.state = State::at_block_barrier;
  ++num_waiting_;
  if (num_waiting_ == threads_.size()) release_block();
  run_next();
  return votes_;
}

void Scheduler::check_lane(const Thread& me, const Thread& other) const {
  if (other.mask != me.mask || other.operation != me.operation)
    fail("lanes of a warp disagree on mask or operation: {} mask {:#x}, {} mask {:#x}", place(me), me.mask,
         place(other), other.mask);
  // Barriers of a warp may be in both branches of an if.
  if (me.operation != WarpOperation::sync && !same_site(me.site, other.site))
    fail("lanes of a warp exchange values at different places: {}, {}", place(me), place(other));
}

void Scheduler::release_warp(const Thread& me) {
  const unsigned first = me.index / kWarpSize * kWarpSize, mask = me.mask;
  const auto in_mask = [&](unsigned lane) { return (mask >> lane & 1U) != 0; };
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (in_mask(lane) && threads_[first + lane].source != 0) ballot |= 1U << lane;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!in_mask(lane)) continue;
    Thread& thread = threads_[first + lane];
    check_lane(me, thread);
    if (thread.operation == WarpOperation::ballot) std::memcpy(thread.out, &ballot, sizeof(ballot));
    if (thread.operation == WarpOperation::shuffle) {
      const unsigned source = static_cast<unsigned>(thread.source) % kWarpSize;
      if (!in_mask(source))
        fail("a shuffle from lane {}, which is not in mask {:#x}: {}", source, mask, place(thread));
      std::memcpy(thread.out, threads_[first + source].in, thread.num_bytes);
    }
    make_ready(thread);
  }
  waiting_lanes_[first / kWarpSize] &= ~mask;
  // Shuffles and votes order no memory (CUDA C++ programming guide).
  if (me.operation == WarpOperation::sync) race_warp_barrier(first / kWarpSize, mask);
}

void Scheduler::warp_operation(const Site& site, WarpOperation operation, unsigned mask, const void* in,
                               void* out, std::size_t num_bytes, int source) {
  Thread& me = self();
  me.site = site;
  me.operation = operation;
  me.mask = mask;
  me.num_bytes = num_bytes;
  me.source = source;
  if (in != nullptr) std::memcpy(me.in, in, num_bytes);
  const unsigned warp = me.index / kWarpSize, lane = 1U << me.index % kWarpSize;
  if ((mask & lane) == 0)
    fail("a lane calls a warp operation whose mask does not name it: {} mask {:#x}", place(me), mask);
  const std::size_t lanes_of_warp = std::min<std::size_t>(kWarpSize, threads_.size() - warp * kWarpSize);
  if (lanes_of_warp < kWarpSize && mask >> lanes_of_warp != 0)
    fail("a mask names lanes beyond the block: {} mask {:#x}", place(me), mask);
  me.state = State::at_warp_operation;
  waiting_lanes_[warp] |= lane;
  if ((waiting_lanes_[warp] & mask) == mask) release_warp(me);
  run_next();
  if (out != nullptr) std::memcpy(out, me.out, num_bytes);
}

}  // namespace

void run_grid(const LaunchConfig& config, const std::function<void()>& body) {
  scheduler().run(config, body);
}

BarrierVotes block_barrier(const Site& site, bool vote) {
  return scheduler().block_barrier(site, vote);
}

void warp_operation(const Site& site, WarpOperation operation, unsigned mask, const void* in, void* out,
                    std::size_t num_bytes, int source) {
  scheduler().warp_operation(site, operation, mask, in, out, num_bytes, source);
}

unsigned lane_id() {
  return current_thread->index % kWarpSize;
}

const GridStatistics& grid_statistics() {
  return scheduler().statistics();
}

}  // namespace cuda_on_cpu

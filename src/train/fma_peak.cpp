#include "train/fma_peak.hpp"

#include <algorithm>
#include <chrono>
#include <vector>

#include "device/backend.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "train/fma_peak.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target
#include <hwy/highway.h>

#ifndef RED_TRAIN_FMA_PEAK_ONCE
#define RED_TRAIN_FMA_PEAK_ONCE
namespace red::train {
namespace {

/// 8 hide a latency of 4 cycles on two units, 10 one of 5; with both factors, 12 fit the 16 registers of
/// AVX2.
constexpr int kChains = 12;

/// What a chain of multiply-adds came to, to be looked at, and the FLOPs of all of them.
struct Burst {
  float sum;
  double flop;
};

}  // namespace
}  // namespace red::train
#endif

HWY_BEFORE_NAMESPACE();
namespace red::train {
namespace HWY_NAMESPACE {  // NOLINT(readability-identifier-naming): Highway's
namespace {

namespace hn = hwy::HWY_NAMESPACE;

/// x = scale x + shift in every chain, `rounds` times; stays near shift / (1 - scale).
Burst multiply_add(float scale_of, float shift_of, int64_t rounds) {
  const hn::ScalableTag<float> d;
  const auto scale = hn::Set(d, scale_of), shift = hn::Set(d, shift_of);
  auto x0 = hn::Iota(d, 0.0F), x1 = hn::Iota(d, 1.0F), x2 = hn::Iota(d, 2.0F), x3 = hn::Iota(d, 3.0F);
  auto x4 = hn::Iota(d, 4.0F), x5 = hn::Iota(d, 5.0F), x6 = hn::Iota(d, 6.0F), x7 = hn::Iota(d, 7.0F);
  auto x8 = hn::Iota(d, 8.0F), x9 = hn::Iota(d, 9.0F), x10 = hn::Iota(d, 10.0F), x11 = hn::Iota(d, 11.0F);
  for (int64_t i = 0; i < rounds; ++i) {
    x0 = hn::MulAdd(x0, scale, shift);
    x1 = hn::MulAdd(x1, scale, shift);
    x2 = hn::MulAdd(x2, scale, shift);
    x3 = hn::MulAdd(x3, scale, shift);
    x4 = hn::MulAdd(x4, scale, shift);
    x5 = hn::MulAdd(x5, scale, shift);
    x6 = hn::MulAdd(x6, scale, shift);
    x7 = hn::MulAdd(x7, scale, shift);
    x8 = hn::MulAdd(x8, scale, shift);
    x9 = hn::MulAdd(x9, scale, shift);
    x10 = hn::MulAdd(x10, scale, shift);
    x11 = hn::MulAdd(x11, scale, shift);
  }
  const auto low = hn::Add(hn::Add(hn::Add(x0, x1), hn::Add(x2, x3)), hn::Add(x4, x5));
  const auto high = hn::Add(hn::Add(hn::Add(x6, x7), hn::Add(x8, x9)), hn::Add(x10, x11));
  return {hn::GetLane(hn::SumOfLanes(d, hn::Add(low, high))),
          2.0 * kChains * static_cast<double>(hn::Lanes(d)) * static_cast<double>(rounds)};
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::train
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::train {
namespace {

HWY_EXPORT(multiply_add);

/// A burst of all threads: what it did, and how long the slowest took.
double gflops_of_burst(ThreadPool& threads, float scale, float shift, int64_t rounds) {
  std::vector<Burst> bursts(static_cast<std::size_t>(threads.num_threads()));
  const auto begin = std::chrono::steady_clock::now();
  threads.run(threads.num_threads(), [&](int64_t i) {
    bursts[static_cast<std::size_t>(i)] = HWY_DYNAMIC_DISPATCH(multiply_add)(scale, shift, rounds);
  });
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  double flop = 0.0;
  for (const Burst& burst : bursts) {
    RED_CHECK(burst.sum > 0.0F, "multiply-adds came to {}", burst.sum);
    flop += burst.flop;
  }
  return flop / seconds / 1e9;
}

}  // namespace

std::optional<double> fma_peak_gflops(parallel::Communicator& world, Stream& stream) {
  if (gpu_facts()) return std::nullopt;  // so has every rank
  constexpr int bursts = 12;
  constexpr int64_t rounds = 1 << 20;  // 2 to 4 ms: long beside the waking of threads
  double best = 0.0;
  for (int i = 0; i < bursts; ++i) {
    // The sum is also what the ranks of the next burst begin together behind.
    double sum[1] = {gflops_of_burst(stream.threads(), 0.75F, 0.5F, rounds)};
    parallel::Request request = world.all_reduce(make_tensor(sum, 1, 1), parallel::ReduceOp::sum);
    world.wait(request, "multiply-adds of all ranks");
    best = std::max(best, sum[0]);
  }
  return best;
}

}  // namespace red::train
#endif  // HWY_ONCE

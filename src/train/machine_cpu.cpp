#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "ops/elementwise.hpp"
#include "ops/matmul.hpp"
#include "train/machine.hpp"

namespace red::train {

int default_threads(int ranks_on_host) {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = sched_getaffinity(0, sizeof(set), &set) == 0;
  const int cores = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
  const int all = static_cast<int>(std::thread::hardware_concurrency());
  // A rank bound to fewer cores than the machine has was given them for itself.
  const bool bound = known && cores < all;
  return std::max(1, bound ? cores : cores / std::max(1, ranks_on_host));
}

double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

void agree_on_gemm(parallel::Communicator& world, Stream& stream) {
  constexpr std::array choices = {GemmChoice::openblas, GemmChoice::onednn, GemmChoice::plain};
  std::array<double, 2 * choices.size()> votes{};  // for each library, then against
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (stream.gemm().choice == choices[i]) votes[i] = 1.0;
    if (!gemm_usable(choices[i])) votes[choices.size() + i] = 1.0;
  }
  parallel::Request request =
      world.all_reduce(make_tensor(votes.data(), votes.size(), 1), parallel::ReduceOp::sum);
  world.wait(request, "choice of the matrix library");
  std::size_t best = choices.size() - 1;
  for (std::size_t i = choices.size(); i-- > 0;) {
    if (votes[choices.size() + i] == 0.0 && votes[i] >= votes[best]) best = i;
  }
  stream.use_gemm(gemm_library_with_bf16(choices[best]));
}

namespace {

/// The best rate of products (n, n) (n, n) within `seconds`, of three at least.
double best_gflops(Stream& stream, int64_t n, DType dtype, double seconds) {
  Arena arena("peak measurement", 3 * Arena::rounded(static_cast<std::size_t>(n * n) * size_of(dtype)));
  const Tensor a = arena.allocate(n, n, dtype), b = arena.allocate(n, n, dtype),
               c = arena.allocate(n, n, dtype);
  ops::fill(stream, a, 1.0F);
  ops::fill(stream, b, 1.0F);
  using Clock = std::chrono::steady_clock;
  const auto since = [](Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  };
  double best = 0.0;
  const auto first = Clock::now();
  for (int i = 0; i < 3 || since(first) < seconds; ++i) {
    stream.synchronize();
    const auto begin = Clock::now();
    ops::matmul(stream, c, a, ops::Transpose::no, b, ops::Transpose::no);
    stream.synchronize();
    best = std::max(best, 2.0 * static_cast<double>(n * n * n) / since(begin) / 1e9);
  }
  return best;
}

}  // namespace

double measured_peak_gflops(Stream& stream, DType dtype) {
  // Large enough that threads and caches are busy, where the library is fast enough for that.
  constexpr double fast = 20.0, seconds = 0.15;
  const double small = best_gflops(stream, 384, dtype, 0.01);
  return small < fast ? small : std::max(small, best_gflops(stream, 1536, dtype, seconds));
}

}  // namespace red::train

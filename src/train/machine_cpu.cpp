#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "base/log.hpp"
#include "ops/elementwise.hpp"
#include "ops/matmul.hpp"
#include "ops/spread_numbers.hpp"
#include "train/machine.hpp"

namespace red::train {

double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

namespace {

constexpr std::array kChoices = {GemmChoice::openblas, GemmChoice::onednn, GemmChoice::plain};

}  // namespace

void agree_on_gemm(parallel::Communicator& world, Stream& stream) {
  std::array<double, 2 * kChoices.size()> votes{};  // for each library, then against
  for (std::size_t i = 0; i < kChoices.size(); ++i) {
    if (stream.gemm().choice == kChoices[i]) votes[i] = 1.0;
    if (!gemm_usable(kChoices[i])) votes[kChoices.size() + i] = 1.0;
  }
  parallel::Request request =
      world.all_reduce(make_tensor(votes.data(), votes.size(), 1), parallel::ReduceOp::sum);
  world.wait(request, "choice of the matrix library");
  std::size_t best = kChoices.size() - 1;
  for (std::size_t i = kChoices.size(); i-- > 0;) {
    if (votes[kChoices.size() + i] == 0.0 && votes[i] >= votes[best]) best = i;
  }
  stream.use_gemm(gemm_library_with_bf16(kChoices[best]));
}

void keep_gemm(const checkpoint::Metadata& metadata, parallel::Communicator& world, Stream& stream) {
  const auto saved = metadata.extra.find(kGemmKey);
  if (saved == metadata.extra.end()) return;
  const auto* const before = std::find_if(
      kChoices.begin(), kChoices.end(), [&](GemmChoice choice) { return name_of(choice) == saved->second; });
  if (before == kChoices.end()) return;
  double without[1] = {gemm_usable(*before) ? 0.0 : 1.0};
  parallel::Request request = world.all_reduce(make_tensor(without, 1, 1), parallel::ReduceOp::sum);
  world.wait(request, "choice of the matrix library");
  if (without[0] == 0.0) return stream.use_gemm(gemm_library_with_bf16(*before));
  log::warning(
      "resume: the checkpoint's steps were multiplied by {}, which {:.0f} of {} ranks cannot use; the next "
      "ones by {}, which rounds differently",
      saved->second, without[0], world.size(), name_of(stream.gemm().choice));
}

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Two matrices and their product.
class Product {
 public:
  Product(Stream& stream, int64_t n, DType dtype)
      : stream_(stream),
        n_(n),
        arena_("peak measurement", 3 * Arena::rounded(static_cast<std::size_t>(n * n) * size_of(dtype))),
        a_(arena_.allocate(n, n, dtype)),
        b_(arena_.allocate(n, n, dtype)),
        c_(arena_.allocate(n, n, dtype)) {
    ops::spread_numbers(stream, a_, ops::Numbers::both_signs, 0);
    ops::spread_numbers(stream, b_, ops::Numbers::both_signs, 1);
  }
  double gflop() const { return 2.0 * static_cast<double>(n_ * n_ * n_) / 1e9; }
  void start() { ops::matmul(stream_, c_, a_, ops::Transpose::no, b_, ops::Transpose::no); }
  void run() {
    start();
    stream_.synchronize();
  }

 private:
  Stream& stream_;
  int64_t n_;
  Arena arena_;
  Tensor a_, b_, c_;
};

/// The best rate of products (n, n) (n, n) within `seconds`, of two at least: a library prepares itself
/// during the first.
double best_gflops(Stream& stream, int64_t n, DType dtype, double seconds) {
  Product product(stream, n, dtype);
  stream.synchronize();
  double best = 0.0;
  const auto first = Clock::now();
  for (int i = 0; i < 2 || seconds_since(first) < seconds; ++i) {
    const auto begin = Clock::now();
    product.run();
    best = std::max(best, product.gflop() / seconds_since(begin));
  }
  return best;
}

}  // namespace

double sustained_gflops(Stream& stream, DType dtype, int64_t n, double seconds,
                        const std::function<void()>& while_busy) {
  Product product(stream, n, dtype);
  product.run();  // warms up
  constexpr int stretches = 3;
  double best = 0.0;
  for (int stretch = 0; stretch < stretches; ++stretch) {
    const auto begin = Clock::now();
    int count = 0;
    do {
      product.run();
      ++count;
    } while (seconds_since(begin) < seconds / stretches);
    best = std::max(best, count * product.gflop() / seconds_since(begin));
  }
  if (!while_busy) return best;
  constexpr int some = 8;  // enough for the time that sensors take to be read
  for (int i = 0; i < some; ++i) product.start();
  while_busy();
  stream.synchronize();
  return best;
}

double measured_peak_gflops(Stream& stream, DType dtype) {
  // Large enough that threads and caches are busy, where such a product takes no longer than `seconds`: other
  // ranks wait meanwhile, and the cores may be shared by many processes.
  constexpr double fast = 50.0, of_a_gpu = 5000.0, seconds = 0.15;
  const double small = best_gflops(stream, 384, dtype, 0.01);
  if (small < fast) return small;
  const double large = std::max(small, best_gflops(stream, 1536, dtype, seconds));
  return large < of_a_gpu ? large : std::max(large, best_gflops(stream, 4096, dtype, seconds));
}

}  // namespace red::train

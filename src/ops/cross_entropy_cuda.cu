// Cross-entropy on a GPU. Partials: a block takes a token's V logits twice: for their maximum; and for exp(x
// - max), their sum in fp64 and, for a gradient, the logits' replacement; the second time they come from the
// L2 cache. Then one pass scales the row. Bound by bytes: 4 V read and 4 V written by partials, 4 V read and
// 2 V or 4 V written behind them. Shapes: n tokens, V own columns; partials (ranks, 3 n).
#include <limits>

#include "ops/blocks.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"

namespace red::ops {
namespace {

using Partial = CrossEntropyPartial;
static_assert(sizeof(Partial) == kCrossEntropyPartialSize * sizeof(double));

/// The larger one, or NaN where one of them is.
struct Largest {
  __device__ float operator()(float a, float b) const { return a != a || a > b ? a : b; }
  template <class T>
  static __device__ T nothing() {
    return -std::numeric_limits<T>::infinity();
  }
};

struct Tokens {
  int64_t count, vocabulary, first_column;
  const int32_t* targets;    // (n)
  const uint8_t* loss_mask;  // (n)

  /// The target's own column, or -1.
  __device__ int64_t own_target(int64_t token) const {
    const int64_t target = targets[token] - first_column;
    return target >= 0 && target < vocabulary ? target : -1;
  }
};

template <int kN>
__global__ void __launch_bounds__(512)
    partials_kernel(Partial* partials, RowsOf<float> logits, Tokens tokens, LogitsBecome become) {
  for (int64_t token = blockIdx.x; token < tokens.count; token += gridDim.x) {
    float* x = logits.at(token);
    const int64_t target = tokens.own_target(token);
    const float target_logit = target < 0 ? 0.0F : x[target];  // before it is overwritten
    float max = Largest::nothing<float>();
    for_each_column<kN>(tokens.vocabulary, [&](auto lanes, int64_t col) {
      float v[decltype(lanes)::value];
      load(v, x + col);
      for (const float value : v) max = Largest()(max, value);
    });
    max = block_reduce(max, Largest());
    // A logit that is not finite must reach the loss and the gradients, where it is looked for.
    const bool finite = is_finite(max),
               keep = become == LogitsBecome::gradient && tokens.loss_mask[token] != 0;
    double sum = 0.0;
    for_each_column<kN>(finite ? tokens.vocabulary : 0, [&](auto lanes, int64_t col) {
      constexpr int n = decltype(lanes)::value;
      float v[n];
      load(v, x + col);
#pragma unroll
      for (int i = 0; i < n; ++i) {
        v[i] = expf(v[i] - max);
        sum += v[i];
      }
      if (keep) store(x + col, v);
    });
    sum = block_sum(sum);
    if (threadIdx.x != 0) continue;
    const bool none = tokens.vocabulary == 0;
    partials[token] = {max, finite || none ? sum : std::numeric_limits<double>::quiet_NaN(), target_logit};
  }
}

/// The whole row, from the parts in the order of ranks.
struct RowTotal {
  double max, sum, target_logit;

  __device__ double log_z() const { return max + log(sum); }
};

__device__ RowTotal row_total(RowsOf<const double> partials, int64_t ranks, int64_t token) {
  RowTotal total{-std::numeric_limits<double>::infinity(), 0.0, 0.0};
  const auto part = [&](int64_t rank) { return reinterpret_cast<const Partial*>(partials.at(rank))[token]; };
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const double max = part(rank).max;
    if (max > total.max) total.max = max;
  }
  for (int64_t rank = 0; rank < ranks; ++rank) {
    const Partial p = part(rank);
    if (p.sum != 0.0) total.sum += p.sum * exp(p.max - total.max);  // NaN comes through
    total.target_logit += p.target_logit;
  }
  return total;
}

struct RowLoss {
  double with_z, plain;
};

struct LossArgs {
  Tokens tokens;
  RowsOf<const double> partials;
  int64_t ranks, rank;
  float z_loss;
  RowsOf<float> log_probability;  // (n, 1) or null
  RowLoss* losses;                // (n)
  float* scales;                  // (n): of exp(logit - own max), to make the gradient
};

__global__ void losses_kernel(LossArgs a) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (token >= a.tokens.count) return;
  const RowTotal total = row_total(a.partials, a.ranks, token);
  double log_z = total.log_z();
  const bool counts = a.tokens.loss_mask[token] != 0;
  // A target that no rank has makes the loss no number, and the step is called off: the host cannot be asked
  // without waiting. With more ranks none of them knows.
  if (counts && a.ranks == 1 && a.tokens.own_target(token) < 0)
    log_z = std::numeric_limits<double>::quiet_NaN();
  const double loss = log_z - total.target_logit;
  if (a.log_probability.data != nullptr) a.log_probability(token) = static_cast<float>(-loss);
  a.losses[token] = counts ? RowLoss{loss + a.z_loss * log_z * log_z, loss} : RowLoss{0.0, 0.0};
  const Partial own = reinterpret_cast<const Partial*>(a.partials.at(a.rank))[token];
  a.scales[token] = static_cast<float>((1.0 + 2.0 * a.z_loss * log_z) / total.sum * exp(own.max - total.max));
}

/// y = scale x, and 1 less at the target; 0 in rows that do not count. A block for each token; y may be x, or
/// begin where x does: what the block writes at a time, all its threads have read, and more.
template <int kN, class T>
__global__ void gradient_kernel(RowsOf<T> y, RowsOf<const float> x, Tokens tokens, const float* scales) {
  for (int64_t token = blockIdx.x; token < tokens.count; token += gridDim.x) {
    const bool counts = tokens.loss_mask[token] != 0;
    const int64_t vocabulary = tokens.vocabulary, target = tokens.own_target(token);
    for (int64_t begin = 0; begin < vocabulary; begin += static_cast<int64_t>(blockDim.x) * kN) {
      const int64_t col = begin + static_cast<int64_t>(threadIdx.x) * kN, count = vocabulary - col;
      float v[kN] = {};
      if (counts && count > 0) {
        load_some(v, x.at(token, col), count);
#pragma unroll
        for (int i = 0; i < kN; ++i) v[i] = v[i] * scales[token] - (col + i == target ? 1.0F : 0.0F);
      }
      __syncthreads();
      if (count > 0) store_some(y.at(token, col), v, count);
    }
  }
}

constexpr int kLossThreads = 512;

/// One block: each thread adds up the losses of some tokens that follow one another, then they are joined.
__global__ void __launch_bounds__(kLossThreads)
    add_losses_kernel(RowsOf<double> sums, const RowLoss* losses, int64_t count) {
  const int64_t each = (count + kLossThreads - 1) / kLossThreads;
  const int64_t begin = threadIdx.x * each, end = min(count, begin + each);
  RowLoss sum{0.0, 0.0};
  for (int64_t i = begin; i < end; ++i) {
    sum.with_z += losses[i].with_z;
    sum.plain += losses[i].plain;
  }
  sum = {block_sum(sum.with_z), block_sum(sum.plain)};
  if (threadIdx.x != 0) return;
  sums(0) += sum.with_z;
  sums(1) += sum.plain;
}

void check_partials(const Tensor& partials, const Tensor& logits) {
  RED_CHECK(partials.cols == kCrossEntropyPartialSize * logits.rows, "partials ({}, {}), {} tokens",
            partials.rows, partials.cols, logits.rows);
  RED_CHECK(logits.dtype == DType::fp32, "logits hold {}", name_of(logits.dtype));
}

void write_gradient(Stream& stream, const Tensor& d_logits, const Tensor& logits, const Tokens& tokens,
                    const float* scales) {
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    launch(stream, gradient_kernel<n, T>, blocks_for(logits.rows), threads_for(pieces(logits.cols, n), 512),
           RowsOf<T>(d_logits), RowsOf<const float>(logits), tokens, scales);
  };
  with_lanes(d_logits.dtype, run, d_logits, logits);
}

}  // namespace

void cross_entropy_partials(Stream& stream, const Tensor& partials, const Tensor& logits,
                            int64_t first_column, const int32_t* targets, const uint8_t* loss_mask,
                            LogitsBecome become) {
  check_partials(partials, logits);
  const Tokens tokens{logits.rows, logits.cols, first_column, targets, loss_mask};
  auto* out = reinterpret_cast<Partial*>(partials.as<double>());
  const auto run = [&](auto lanes) {
    constexpr int n = decltype(lanes)::value;
    launch(stream, partials_kernel<n>, blocks_for(logits.rows), threads_for(pieces(logits.cols, n), 512), out,
           RowsOf<float>(logits), tokens, become);
  };
  in_vectors(4, logits) ? run(Lanes<4>()) : run(Lanes<1>());
}

std::size_t cross_entropy_scratch_bytes(int64_t num_tokens) {
  return Arena::rounded(static_cast<std::size_t>(num_tokens) * sizeof(RowLoss)) +
         Arena::rounded(static_cast<std::size_t>(num_tokens) * sizeof(float));
}

void cross_entropy(Stream& stream, const Tensor& sums, const Tensor& log_probability, const Tensor& d_logits,
                   const Tensor& logits, const Tensor& partials, int64_t rank, int64_t first_column,
                   const int32_t* targets, const uint8_t* loss_mask, float z_loss) {
  const int64_t num_tokens = logits.rows;
  RED_CHECK(sums.rows == 2 && sums.cols == 1 && sums.dtype == DType::fp64, "sums ({}, {})", sums.rows,
            sums.cols);
  RED_CHECK(log_probability.empty() || log_probability.rows == num_tokens, "log_probability {}, logits {}",
            log_probability.rows, num_tokens);
  RED_CHECK(rank >= 0 && rank < partials.rows, "rank {} of {}", rank, partials.rows);
  check_partials(partials, logits);
  if (!d_logits.empty()) check_same_shape(d_logits, logits);
  if (num_tokens == 0) return;
  const ArenaScope scope(stream.scratch());
  auto* losses = reinterpret_cast<RowLoss*>(stream.scratch().allocate<double>(num_tokens, 2).as<double>());
  auto* scales = stream.scratch().allocate<float>(num_tokens, 1).as<float>();
  const LossArgs args{{num_tokens, logits.cols, first_column, targets, loss_mask},
                      RowsOf<const double>(partials),
                      partials.rows,
                      rank,
                      z_loss,
                      RowsOf<float>(log_probability),
                      losses,
                      scales};
  launch(stream, losses_kernel, static_cast<unsigned>(pieces(num_tokens, 128)), 128, args);
  if (!d_logits.empty()) write_gradient(stream, d_logits, logits, args.tokens, scales);
  launch(stream, add_losses_kernel, 1, kLossThreads, RowsOf<double>(sums), losses, num_tokens);
}

}  // namespace red::ops

#include "ops/attention_agreement.hpp"

#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "device/stream_arena.hpp"
#include "ops/attention.hpp"
#include "ops/elementwise.hpp"

namespace red::ops {
namespace {

constexpr int64_t kHeads = 2;
constexpr std::array<int32_t, 4> kQueryOffsets = {0, 100, 137, 265}, kKeyOffsets = {0, 61, 189, 194};
// Of a result's norm: bf16 results of fp32 sums, and probabilities rounded to bf16 in either.
constexpr double kMostDisagreement = 2e-2;

/// What one way makes of the problem.
struct Results {
  Results(detail::StreamArena& arena, int64_t queries, int64_t keys, int64_t width)
      : o(arena.allocate(queries, width, DType::bf16)),
        dq(arena.allocate(queries, width, DType::bf16)),
        dk(arena.allocate(keys, width, DType::bf16)),
        dv(arena.allocate(keys, width, DType::bf16)),
        lse(arena.allocate(kHeads, queries)) {}
  Tensor o, dq, dk, dv, lse;
};

/// N(0, 1)
void fill_random(Stream& stream, const Tensor& x, uint64_t seed) {
  std::vector<bf16> values(static_cast<std::size_t>(x.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const PhiloxBlock bits = philox(seed, i);
    values[i] = bf16(static_cast<float>(normal_from(bits[0], bits[1])));
  }
  copy_to_device(stream, x.data, values.data(), values.size() * sizeof(bf16));
}

template <class T>
std::vector<T> read(Stream& stream, const Tensor& x) {
  std::vector<T> values(static_cast<std::size_t>(x.size()));
  copy_to_host(stream, values.data(), x.data, values.size() * sizeof(T));
  stream.synchronize();
  return values;
}

template <class T>
double difference(Stream& stream, const Tensor& x, const Tensor& expected) {
  const std::vector<T> a = read<T>(stream, x), b = read<T>(stream, expected);
  double squares = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double right = static_cast<float>(b[i]), error = static_cast<float>(a[i]) - right;
    squares += error * error;
    norm += right * right;
  }
  return std::isfinite(squares) ? std::sqrt(squares / norm) : INFINITY;
}

}  // namespace

std::string attention_objection(Stream& stream, int64_t head_dim, bool causal,
                                const AttentionPasses& library) {
  const auto& k_offsets = causal ? kQueryOffsets : kKeyOffsets;
  const int64_t queries = kQueryOffsets.back(), keys = k_offsets.back(), width = kHeads * head_dim;
  detail::StreamArena arena(stream, "a trial of attention",
                            static_cast<std::size_t>(64 * (queries + keys) * width));
  const Tensor q = arena.allocate(queries, width, DType::bf16), k = arena.allocate(keys, width, DType::bf16),
               v = arena.allocate(keys, width, DType::bf16),
               d_o = arena.allocate(queries, width, DType::bf16), delta = arena.allocate(kHeads, queries);
  uint64_t seed = 0;
  for (const Tensor& x : {q, k, v, d_o}) fill_random(stream, x, ++seed);
  const auto offsets = [&](const std::array<int32_t, 4>& values) {
    const Tensor device = arena.allocate<int32_t>(1, 4);
    copy_to_device(stream, device.data, values.data(), sizeof(values));
    return device.as<int32_t>();
  };
  AttentionLayout layout;
  layout.num_sequences = 3;
  layout.q_offsets = offsets(kQueryOffsets);
  layout.k_offsets = offsets(k_offsets);
  layout.num_heads = kHeads;
  layout.longest_q = layout.longest_k = 128;
  layout.shortest = 5;
  AttentionMask mask;
  mask.causal = causal;

  const Results ours(arena, queries, keys, width), theirs(arena, queries, keys, width);
  // The memory may hold what an earlier trial left there, which must not pass for the library's.
  for (const Tensor& x : {theirs.o, theirs.dq, theirs.dk, theirs.dv, theirs.lse}) fill(stream, x, 0.0F);
  const AttentionChoice choice = stream.attention();
  stream.use_attention(AttentionChoice::own);
  attention_forward(stream, ours.o, ours.lse, q, k, v, layout, mask);
  attention_delta(stream, delta, d_o, ours.o, nullptr);
  attention_backward(stream, ours.dq, ours.dk, ours.dv, d_o, delta, q, k, v, ours.lse, layout, mask);
  stream.use_attention(choice);
  if (!library.forward(stream, theirs.o, theirs.lse, q, k, v, layout, mask))
    return "it refuses the forward pass of a small problem";
  if (!library.backward(stream, theirs.dq, theirs.dk, theirs.dv, d_o, {&ours.o, nullptr}, q, k, v, ours.lse,
                        layout, mask))
    return "it refuses the backward pass of a small problem";
  double worst = 0.0;
  const char* of_what = "";
  const auto compare = [&](const char* what, double error) {
    if (!(error <= worst)) worst = error, of_what = what;
  };
  compare("the result", difference<bf16>(stream, theirs.o, ours.o));
  compare("log-sum-exp", difference<float>(stream, theirs.lse, ours.lse));
  compare("the queries' gradient", difference<bf16>(stream, theirs.dq, ours.dq));
  compare("the keys' gradient", difference<bf16>(stream, theirs.dk, ours.dk));
  compare("the values' gradient", difference<bf16>(stream, theirs.dv, ours.dv));
  if (worst <= kMostDisagreement) return "";
  return fmt::format("{} differs by {:.1e} of its norm", of_what, worst);
}

}  // namespace red::ops

// Attention's tensors on the device, for its tests, and how near its results come to float64.
#pragma once

#include "ops/attention.hpp"
#include "support/compare.hpp"
#include "support/reference_attention.hpp"

namespace red::test {

// fp32 softmax and sums over up to 700 keys and 128 dims; values are N(0, 1).
inline constexpr Tolerance kClose = {.absolute = 5e-6, .relative = 5e-6};
// Gradients of keys sum over up to 700 queries.
inline constexpr Tolerance kGradientsClose = {.absolute = 3e-5, .relative = 3e-5};

/// The tensors of one case, all with different row strides; T: of all but the statistics.
template <class T>
struct AttentionTensors {
  explicit AttentionTensors(const AttentionCase& c)
      : q(c.q, 8),
        keys(c.keys, 24),
        values(c.values, 24),
        d_o(c.d_o, 8),
        o(c.q.rows, c.q.cols, 5),
        lse(c.heads, c.q.rows, 3),
        delta(c.heads, c.q.rows, 2),
        dq(c.q.rows, c.q.cols, 7),
        dk(c.keys.rows, c.keys.cols, 9),
        dv(c.keys.rows, c.keys.cols) {}

  void forward(Stream& stream, const AttentionCase& c) const {
    const AttentionOnDevice where(c);
    ops::attention_forward(stream, o, lse, q, keys, values, where.layout(), where.mask());
  }
  void backward(Stream& stream, const AttentionCase& c) const {
    ops::attention_delta(stream, delta, d_o, o, nullptr);
    backward_from(stream, c, delta);
  }
  void backward_from(Stream& stream, const AttentionCase& c, const FloatTensor& given_delta) const {
    const AttentionOnDevice where(c);
    ops::attention_backward(stream, dq, dk, dv, d_o, given_delta, q, keys, values, lse, where.layout(),
                            where.mask());
  }
  void probe(Stream& stream, const AttentionCase& c, const FloatTensor& probabilities, int64_t sequence,
             int64_t head, int64_t first_row) const {
    const AttentionOnDevice where(c);
    ops::attention_probabilities(stream, probabilities, q, keys, lse, where.layout(), where.mask(), sequence,
                                 head, first_row);
  }
  bool padding_untouched() const {
    return o.padding_untouched() && lse.padding_untouched() && delta.padding_untouched() &&
           dq.padding_untouched() && dk.padding_untouched() && dv.padding_untouched();
  }

  OwnedTensor<T> q, keys, values, d_o, o;
  FloatTensor lse, delta;
  OwnedTensor<T> dq, dk, dv;
};

}  // namespace red::test

#include "launch/op_builders.hpp"

#include <algorithm>
#include <memory>

#include "ops/attention.hpp"
#include "ops/cross_entropy.hpp"
#include "ops/dropout.hpp"
#include "ops/elementwise.hpp"
#include "ops/embedding.hpp"
#include "ops/head_norm_rope.hpp"
#include "ops/norm.hpp"
#include "ops/split_norm.hpp"
#include "ops/swiglu.hpp"

namespace red::launch {

using ops::Transpose;

namespace {

/// What attention works on.
struct AttentionProblem {
  Tensor q, keys, values, o, lse, d_o, delta, dq, dk, dv;
  ops::AttentionLayout layout;
  ops::AttentionMask mask;

  AttentionProblem(OpMemory& memory, const AttentionSizes& s) {
    const int64_t width = s.h * s.k, n = s.batch * s.queries;
    for (Tensor* t : {&q, &o, &d_o, &dq}) *t = memory.tensor(n, width, s.dtype);
    for (Tensor* t : {&keys, &values, &dk, &dv}) *t = memory.tensor(s.batch * s.keys, width, s.dtype);
    lse = memory.constant(s.h, n, DType::fp32, 10.0F);
    delta = memory.tensor(s.h, n, DType::fp32);
    std::vector<int32_t> q_offsets, k_offsets;
    for (int64_t b = 0; b <= s.batch; ++b) {
      q_offsets.push_back(static_cast<int32_t>(b * s.queries));
      k_offsets.push_back(static_cast<int32_t>(b * s.keys));
    }
    layout = {.num_sequences = s.batch,
              .q_offsets = memory.numbers(q_offsets),
              .k_offsets = memory.numbers(k_offsets),
              .num_heads = s.h,
              .longest_q = s.queries,
              .longest_k = s.keys,
              .shortest = std::min(s.queries, s.keys)};
    mask.causal = s.causal;
  }
};

/// What each query sees is written, and read, 16 bytes of it (find_query_rows of ops/attention_cuda.cuh).
double query_row_bytes(const AttentionSizes& s) {
  return 2.0 * 16.0 * static_cast<double>(s.batch * s.queries);
}

/// Products of one query and one key, over all heads.
double products_of(const AttentionSizes& s) {
  const double keys = s.causal ? 0.5 * static_cast<double>(s.queries + 1) : static_cast<double>(s.keys);
  return static_cast<double>(s.batch * s.h * s.queries) * keys * static_cast<double>(s.k);
}

struct NormProblem {
  Tensor x, y, z, w, inv_rms, gain;

  NormProblem(OpMemory& memory, const RowSizes& s)
      : x(memory.tensor(s.n, s.d, s.dtype)),
        y(memory.tensor(s.n, s.d, s.dtype)),
        z(memory.tensor(s.n, s.d, s.dtype)),
        w(memory.tensor(s.n, s.d, s.dtype)),
        inv_rms(memory.constant(s.n, 1, DType::fp32, 1.0F)),
        gain(memory.tensor(s.d, 1, DType::fp32)) {}
};

/// Norms work in place, over and over: a factor below one would leave zeros of their gradients.
struct HeadProblem {
  Tensor x, y, inv_rms, sums;

  HeadProblem(OpMemory& memory, const HeadSizes& s)
      : x(memory.tensor(s.n, s.h * s.k, s.dtype)),
        y(memory.tensor(s.n, s.h * s.k, s.dtype)),
        inv_rms(memory.constant(s.n, s.h, DType::fp32, 1.0F)),
        sums(memory.tensor(s.n, 1, DType::fp32)) {}
};

struct Rotation {
  std::shared_ptr<ops::RopeTable> table;
  int32_t* positions;

  Rotation(OpMemory& memory, const HeadSizes& s, double rope_base)
      : table(std::make_shared<ops::RopeTable>(s.length, s.k, rope_base)) {
    std::vector<int32_t> all(static_cast<std::size_t>(s.n));
    for (int64_t i = 0; i < s.n; ++i) all[static_cast<std::size_t>(i)] = static_cast<int32_t>(i % s.length);
    positions = memory.numbers(all);
  }
};

/// Ids of tokens, spread over the vocabulary.
std::vector<int32_t> spread_ids(int64_t count, int64_t vocab) {
  std::vector<int32_t> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i)
    ids[i] = static_cast<int32_t>(i * 7919 % static_cast<std::size_t>(vocab));
  return ids;
}

}  // namespace

double elements(const Tensor& t) {
  return static_cast<double>(t.size());
}

double num_bytes(const Tensor& t) {
  return static_cast<double>(t.size()) * static_cast<double>(size_of(t.dtype));
}

OpBuild product(const ProductSizes& s) {
  return [=](OpMemory& memory) {
    const auto stored = [&](int64_t rows, int64_t cols, Transpose transposed, std::size_t element_room) {
      if (transposed == Transpose::yes) std::swap(rows, cols);
      const auto room = static_cast<int64_t>(element_room / size_of(s.dtype));
      return memory.tensor(rows, room * cols, s.dtype).col_range(0, cols);
    };
    const Tensor a = stored(s.m, s.k, s.transpose_a, size_of(s.a_in_place_of)),
                 b = stored(s.k, s.n, s.transpose_b, size_of(s.dtype));
    const Tensor c = memory.tensor(s.m, s.n, s.result);
    return OpWork{
        2.0 * static_cast<double>(s.m) * static_cast<double>(s.n) * static_cast<double>(s.k), 0.0,
        num_bytes(a) + num_bytes(b) + num_bytes(c) * (s.beta == 0.0F ? 1.0 : 2.0),
        [=](Stream& stream) { ops::matmul(stream, c, a, s.transpose_a, b, s.transpose_b, 1.0F, s.beta); },
        [=](Stream& stream) {
          return ops::search_matmul(stream, c, a, s.transpose_a, b, s.transpose_b, 1.0F, s.beta);
        }};
  };
}

OpBuild attention_forward(const AttentionSizes& s) {
  return [=](OpMemory& memory) {
    const AttentionProblem p(memory, s);
    // Of a score: its scale, the row's maximum, the difference from it, exp, sum.
    return OpWork{4.0 * products_of(s), 5.0 * products_of(s) / static_cast<double>(s.k),
                  2.0 * (num_bytes(p.q) + num_bytes(p.keys)) + num_bytes(p.lse) + query_row_bytes(s),
                  [=](Stream& stream) {
                    ops::attention_forward(stream, p.o, p.lse, p.q, p.keys, p.values, p.layout, p.mask);
                  }};
  };
}

OpBuild attention_gradients(const AttentionSizes& s) {
  return [=](OpMemory& memory) {
    const AttentionProblem p(memory, s);
    // Of a score: its scale, less the log-sum-exp, exp; its gradient less delta, times both.
    return OpWork{
        10.0 * products_of(s), 6.0 * products_of(s) / static_cast<double>(s.k),
        3.0 * num_bytes(p.q) + 4.0 * num_bytes(p.keys) + 2.0 * num_bytes(p.lse) + query_row_bytes(s),
        [=](Stream& stream) {
          ops::attention_backward(stream, p.dq, p.dk, p.dv, p.d_o, p.delta, p.q, p.keys, p.values, p.lse,
                                  p.layout, p.mask, {&p.o, nullptr});
        }};
  };
}

OpBuild attention_delta(const AttentionSizes& s) {
  return [=](OpMemory& memory) {
    const AttentionProblem p(memory, s);
    return OpWork{0.0, 2.0 * elements(p.o), 2.0 * num_bytes(p.o) + num_bytes(p.delta),
                  [=](Stream& stream) { ops::attention_delta(stream, p.delta, p.d_o, p.o, nullptr); }};
  };
}

OpBuild norm(const RowSizes& s, Residual residual, float epsilon) {
  return [=](OpMemory& memory) {
    const NormProblem t(memory, s);
    // Sum of squares, times 1 / RMS, times the gain.
    const double rest = num_bytes(t.inv_rms) + num_bytes(t.gain);
    if (residual == Residual::no)
      return OpWork{0.0, 4.0 * elements(t.x), 2.0 * num_bytes(t.x) + rest,
                    [=](Stream& stream) { ops::rms_norm(stream, t.y, t.inv_rms, t.x, t.gain, epsilon); }};
    return OpWork{0.0, 5.0 * elements(t.x), 4.0 * num_bytes(t.x) + rest, [=](Stream& stream) {
                    ops::add_rms_norm(stream, t.z, t.y, t.inv_rms, t.x, t.w, t.gain, epsilon);
                  }};
  };
}

OpBuild norm_again(const RowSizes& s) {
  return [=](OpMemory& memory) {
    const NormProblem t(memory, s);
    return OpWork{0.0, 2.0 * elements(t.x), 2.0 * num_bytes(t.x) + num_bytes(t.inv_rms) + num_bytes(t.gain),
                  [=](Stream& stream) { ops::rms_norm_recompute(stream, t.y, t.x, t.inv_rms, t.gain); }};
  };
}

OpBuild norm_input_gradient(const RowSizes& s, Residual residual) {
  return [=](OpMemory& memory) {
    const NormProblem t(memory, s);
    // n = x / RMS, dn = dy gain; sum of n dn; dx = (dn - n mean) / RMS.
    const bool past = residual == Residual::yes;
    return OpWork{
        0.0, (past ? 8.0 : 7.0) * elements(t.x),
        (past ? 4.0 : 3.0) * num_bytes(t.x) + num_bytes(t.inv_rms) + num_bytes(t.gain), [=](Stream& stream) {
          ops::rms_norm_backward_input(stream, t.z, past ? t.w : Tensor{}, t.y, t.x, t.inv_rms, t.gain);
        }};
  };
}

OpBuild norm_gain_gradient(const RowSizes& s) {
  return [=](OpMemory& memory) {
    const NormProblem t(memory, s);
    return OpWork{0.0, 3.0 * elements(t.x),
                  2.0 * num_bytes(t.x) + num_bytes(t.inv_rms) + 2.0 * num_bytes(t.gain),
                  [=](Stream& stream) { ops::rms_norm_backward_gain(stream, t.gain, t.y, t.x, t.inv_rms); }};
  };
}

OpBuild swiglu(const RowSizes& s) {
  return [=](OpMemory& memory) {
    const Tensor gate_up = memory.tensor(s.n, 2 * s.d, s.dtype), hidden = memory.tensor(s.n, s.d, s.dtype);
    // gate / (1 + exp(-gate)) times up
    return OpWork{0.0, 5.0 * elements(hidden), num_bytes(gate_up) + num_bytes(hidden),
                  [=](Stream& stream) { ops::swiglu(stream, hidden, gate_up); }};
  };
}

OpBuild swiglu_gradient(const RowSizes& s) {
  return [=](OpMemory& memory) {
    const Tensor gate_up = memory.tensor(s.n, 2 * s.d, s.dtype), d_hidden = memory.tensor(s.n, s.d, s.dtype);
    const Tensor d_gate_up = memory.tensor(s.n, 2 * s.d, s.dtype);
    // s = 1 / (1 + exp(-gate)); d_up = d gate s; d_gate = d up s (1 + gate (1 - s))
    return OpWork{0.0, 12.0 * elements(d_hidden), 2.0 * num_bytes(gate_up) + num_bytes(d_hidden),
                  [=](Stream& stream) { ops::swiglu_backward(stream, d_gate_up, d_hidden, gate_up); }};
  };
}

// In place, over and over, where the usual rate would leave zeros and infinities; the work is the same.
OpBuild dropout(const RowSizes& s) {
  constexpr float rate = 0x1.0p-20F;
  return [=](OpMemory& memory) {
    const Tensor x = memory.tensor(s.n, s.d, s.dtype);
    const uint64_t* keys = memory.numbers(std::vector<uint64_t>(static_cast<std::size_t>(s.n), 7));
    return OpWork{0.0, 2.0 * elements(x), 2.0 * num_bytes(x) + 8.0 * static_cast<double>(s.n),
                  [=](Stream& stream) {
                    ops::dropout(stream, x, x, keys, 0, {rate, 3});
                  }};
  };
}

// Sum of squares and times 1 / RMS are 3 an element; of the gradient, sum of y dx, less y mean, times 1 / RMS
// are 5. Two elements are rotated by 4 multiplications and 2 additions.
OpBuild head_norm(const HeadSizes& s, float epsilon) {
  return [=](OpMemory& memory) {
    const HeadProblem t(memory, s);
    return OpWork{0.0, 3.0 * elements(t.x), 2.0 * num_bytes(t.x) + num_bytes(t.inv_rms),
                  [=](Stream& stream) { ops::head_norm(stream, t.x, t.inv_rms, s.h, epsilon); }};
  };
}

OpBuild head_norm_gradient(const HeadSizes& s) {
  return [=](OpMemory& memory) {
    const HeadProblem t(memory, s);
    return OpWork{0.0, 5.0 * elements(t.x), 3.0 * num_bytes(t.x) + num_bytes(t.inv_rms),
                  [=](Stream& stream) { ops::head_norm_backward(stream, t.x, t.y, t.inv_rms, s.h); }};
  };
}

OpBuild head_norm_rope(const HeadSizes& s, float epsilon, double rope_base) {
  return [=](OpMemory& memory) {
    const HeadProblem t(memory, s);
    const Rotation r(memory, s, rope_base);
    return OpWork{0.0, 6.0 * elements(t.x), 2.0 * num_bytes(t.x) + num_bytes(t.inv_rms), [=](Stream& stream) {
                    ops::head_norm_rope(stream, t.x, t.inv_rms, s.h, epsilon, *r.table, r.positions);
                  }};
  };
}

OpBuild head_norm_rope_gradient(const HeadSizes& s, double rope_base) {
  return [=](OpMemory& memory) {
    const HeadProblem t(memory, s);
    const Rotation r(memory, s, rope_base);
    return OpWork{0.0, 8.0 * elements(t.x), 3.0 * num_bytes(t.x) + num_bytes(t.inv_rms), [=](Stream& stream) {
                    ops::head_norm_rope_backward(stream, t.x, t.y, t.inv_rms, s.h, *r.table, r.positions);
                  }};
  };
}

OpBuild split_norm(const HeadSizes& s, float epsilon) {
  return [=](OpMemory& memory) {
    const HeadProblem t(memory, s);
    return OpWork{0.0, 3.0 * elements(t.x), 3.0 * num_bytes(t.x), [=](Stream& stream) {
                    ops::row_dots(stream, t.sums, t.x, t.x);
                    ops::split_norm(stream, t.x, t.inv_rms.col_range(0, 1), t.sums, s.h * s.k, epsilon);
                  }};
  };
}

OpBuild split_norm_gradient(const HeadSizes& s) {
  return [=](OpMemory& memory) {
    const HeadProblem t(memory, s);
    return OpWork{0.0, 5.0 * elements(t.x), 5.0 * num_bytes(t.x), [=](Stream& stream) {
                    ops::row_dots(stream, t.sums, t.x, t.y);
                    ops::split_norm_backward(stream, t.x, t.y, t.inv_rms.col_range(0, 1), t.sums, s.h * s.k);
                  }};
  };
}

OpBuild embedding(const RowSizes& s, int64_t vocab) {
  return [=](OpMemory& memory) {
    const Tensor x = memory.tensor(s.n, s.d, s.dtype), table = memory.tensor(vocab, s.d, s.dtype);
    const int32_t* ids = memory.numbers(spread_ids(s.n, vocab));
    return OpWork{0.0, 0.0, 2.0 * num_bytes(x),
                  [=](Stream& stream) { ops::embedding_gather(stream, x, table, ids); }};
  };
}

OpBuild embedding_gradient(const RowSizes& s, int64_t vocab) {
  return [=](OpMemory& memory) {
    const Tensor dx = memory.tensor(s.n, s.d, s.dtype), table = memory.tensor(vocab, s.d, DType::fp32);
    const int32_t* ids = memory.numbers(spread_ids(s.n, vocab));
    return OpWork{0.0, elements(dx), num_bytes(dx) + 8.0 * static_cast<double>(dx.size()),
                  [=](Stream& stream) { ops::embedding_scatter_add(stream, table, dx, ids); }};
  };
}

OpBuild cross_entropy(int64_t n, int64_t vocab, DType dtype) {
  return [=](OpMemory& memory) {
    const Tensor logits = memory.tensor(n, vocab, DType::fp32);
    const Tensor d_logits = ops::logits_gradient(logits, dtype);
    const Tensor partials = memory.constant(1, ops::kCrossEntropyPartialSize * n, DType::fp64, 0.1F);
    const Tensor sums = memory.constant(2, 1, DType::fp64, 0.1F), log_p = memory.tensor(n, 1, DType::fp32);
    const int32_t* targets = memory.numbers(spread_ids(n, vocab));
    const uint8_t* mask = memory.numbers(std::vector<uint8_t>(static_cast<std::size_t>(n), 1));
    // Maximum, difference from it, exp, sum; times a factor of the row.
    return OpWork{
        0.0, 5.0 * elements(logits), 3.0 * num_bytes(logits) + num_bytes(d_logits), [=](Stream& stream) {
          ops::cross_entropy_partials(stream, partials, logits, 0, targets, mask,
                                      ops::LogitsBecome::gradient);
          ops::cross_entropy(stream, sums, log_p, d_logits, logits, partials, 0, 0, targets, mask, 1e-4F);
        }};
  };
}

}  // namespace red::launch

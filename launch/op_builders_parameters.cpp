// What a step does to parameters, gradients and copies of activations; the rest is in op_builders.cpp.
#include "launch/op_builders.hpp"
#include "ops/adafactor.hpp"
#include "ops/elementwise.hpp"
#include "ops/reduce.hpp"
#include "ops/update_scalars.hpp"

namespace red::launch {
namespace {

struct AdafactorProblem {
  Tensor p, g, sum_u2, sum_p2;
  ops::AdafactorScalars scalars;

  AdafactorProblem(OpMemory& memory, const ParameterSizes& s)
      : p(memory.tensor(s.rows, s.cols, DType::fp32)),
        g(memory.tensor(s.rows, s.cols, DType::fp32)),
        sum_u2(memory.constant(1, 1, DType::fp64, 0.1F)),
        sum_p2(memory.constant(1, 1, DType::fp64, 0.1F)) {
    for (Tensor* scalar : {&scalars.grad_scale, &scalars.decay, &scalars.apply})
      *scalar = memory.constant(1, 1, DType::fp64, 1.0F);
    scalars.learning_rate = memory.constant(1, 1, DType::fp64, 1e-6F);
  }
};

/// What the factored rule keeps, and its sums.
struct FactoredProblem : AdafactorProblem {
  Tensor v_row, v_col, row_sum, col_sum, total;

  FactoredProblem(OpMemory& memory, const ParameterSizes& s)
      : AdafactorProblem(memory, s),
        v_row(memory.tensor(s.rows, 1, DType::fp32, ops::Numbers::positive)),
        v_col(memory.tensor(s.cols, 1, DType::fp32, ops::Numbers::positive)),
        row_sum(memory.constant(s.rows, 1, DType::fp64, 0.1F)),
        col_sum(memory.constant(s.cols, 1, DType::fp64, 0.1F)),
        total(memory.constant(1, 1, DType::fp64, 0.1F)) {}

  double statistics() const { return num_bytes(v_row) + num_bytes(v_col); }
};

}  // namespace

OpBuild copies(int64_t rows, int64_t cols, DType from, DType to) {
  return [=](OpMemory& memory) {
    const Tensor x = memory.tensor(rows, cols, from), y = memory.tensor(rows, cols, to);
    return OpWork{0.0, 0.0, num_bytes(x) + num_bytes(y), [=](Stream& stream) { ops::copy(stream, y, x); }};
  };
}

OpBuild sums(int64_t rows, int64_t cols, DType dtype) {
  return [=](OpMemory& memory) {
    const Tensor x = memory.tensor(rows, cols, dtype), y = memory.tensor(rows, cols, dtype);
    return OpWork{0.0, elements(y), 3.0 * num_bytes(y), [=](Stream& stream) { ops::add(stream, y, y, x); }};
  };
}

OpBuild sums_elsewhere(int64_t rows, int64_t cols, DType dtype) {
  return [=](OpMemory& memory) {
    const Tensor a = memory.tensor(rows, cols, dtype), b = memory.tensor(rows, cols, dtype),
                 y = memory.tensor(rows, cols, dtype);
    return OpWork{0.0, elements(y), 3.0 * num_bytes(y), [=](Stream& stream) { ops::add(stream, y, a, b); }};
  };
}

OpBuild zeros(int64_t rows, int64_t cols, DType dtype) {
  return [=](OpMemory& memory) {
    const Tensor y = memory.tensor(rows, cols, dtype);
    return OpWork{0.0, 0.0, num_bytes(y), [=](Stream& stream) { ops::fill(stream, y, 0.0F); }};
  };
}

OpBuild gradient_norm(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const Tensor x = memory.tensor(s.rows, s.cols, DType::fp32),
                 sum = memory.constant(1, 1, DType::fp64, 0.1F);
    return OpWork{0.0, 2.0 * elements(x), num_bytes(x),
                  [=](Stream& stream) { ops::sum_of_squares(stream, sum, x); }};
  };
}

OpBuild adafactor_state(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const AdafactorProblem t(memory, s);
    const Tensor v = memory.tensor(s.rows, s.cols, DType::fp32, ops::Numbers::positive);
    // g scaled; g^2 + epsilon; the mean of v and it; u^2 = g^2 / v, and its sum; the sum of p^2.
    return OpWork{0.0, 10.0 * elements(t.p), 4.0 * num_bytes(t.p), [=](Stream& stream) {
                    ops::adafactor_accumulate(stream, v, t.g, t.p, t.sum_u2, t.sum_p2, t.scalars, {});
                  }};
  };
}

OpBuild adafactor_step(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const AdafactorProblem t(memory, s);
    const Tensor v = memory.tensor(s.rows, s.cols, DType::fp32, ops::Numbers::positive);
    // g scaled, root of v, quotient, times the step size, difference.
    return OpWork{0.0, 5.0 * elements(t.p), 4.0 * num_bytes(t.p), [=](Stream& stream) {
                    ops::adafactor_apply(stream, t.p, t.g, v, t.sum_u2, t.sum_p2, t.p.size(), t.scalars, {});
                  }};
  };
}

OpBuild factored_sums(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const FactoredProblem t(memory, s);
    // g scaled; g^2 + epsilon; in the row's sum and in the column's.
    return OpWork{0.0, 5.0 * elements(t.g),
                  num_bytes(t.g) + num_bytes(t.row_sum) + 2.0 * num_bytes(t.col_sum), [=](Stream& stream) {
                    ops::adafactor_factored_sums(stream, t.row_sum, t.col_sum, t.g, t.scalars, {});
                  }};
  };
}

OpBuild factored_statistics(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const FactoredProblem t(memory, s);
    // The mean of a statistic and a sum / count, and the sum of the statistics.
    return OpWork{0.0, 5.0 * (elements(t.v_row) + elements(t.v_col)),
                  num_bytes(t.row_sum) + num_bytes(t.col_sum) + 2.0 * t.statistics(), [=](Stream& stream) {
                    ops::adafactor_factored_update(stream, t.v_row, t.row_sum, s.cols, t.total, t.scalars);
                    ops::adafactor_factored_update(stream, t.v_col, t.col_sum, s.rows, t.total, t.scalars);
                  }};
  };
}

OpBuild factored_rms(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const FactoredProblem t(memory, s);
    // g scaled, times its row's and its column's factor; the sums of u^2 and p^2.
    return OpWork{0.0, 7.0 * elements(t.p), 2.0 * num_bytes(t.p) + t.statistics(), [=](Stream& stream) {
                    ops::adafactor_factored_accumulate(stream, t.g, t.p, t.v_row, t.v_col, t.total, s.rows,
                                                       t.sum_u2, t.sum_p2, t.scalars);
                  }};
  };
}

OpBuild factored_step(const ParameterSizes& s) {
  return [=](OpMemory& memory) {
    const FactoredProblem t(memory, s);
    // g scaled, times both factors and the step size; difference.
    return OpWork{0.0, 5.0 * elements(t.p), 3.0 * num_bytes(t.p) + t.statistics(), [=](Stream& stream) {
                    ops::adafactor_factored_apply(stream, t.p, t.g, t.v_row, t.v_col, t.total, s.rows,
                                                  t.sum_u2, t.sum_p2, t.p.size(), t.scalars, {});
                  }};
  };
}

OpBuild step_scalars(int64_t num_parameters) {
  return [=](OpMemory& memory) {
    const Tensor all = memory.constant(ops::kStepSums + num_parameters, 1, DType::fp64, 0.1F);
    const Tensor scalars = memory.constant(ops::kStepScalars, 1, DType::fp64, 0.1F);
    const Tensor updates = memory.constant(1, 1, DType::fp64, 0.1F);
    return OpWork{0.0, elements(all), num_bytes(all) + num_bytes(scalars), [=](Stream& stream) {
                    ops::update_scalars(stream, scalars, updates, all, 1e-6, 0.8, 1.0);
                  }};
  };
}

}  // namespace red::launch

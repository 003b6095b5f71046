// Plain float64 references of the ops, written from their definitions and from nothing in src.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "support/matrix.hpp"

namespace red::test {

/// alpha a b + beta c
inline Matrix reference_matmul(const Matrix& a, const Matrix& b, double alpha = 1.0, double beta = 0.0,
                               const Matrix* c = nullptr) {
  Matrix y(a.rows, b.cols);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < b.cols; ++j) {
      double sum = 0.0;
      for (int64_t p = 0; p < a.cols; ++p) sum += a(i, p) * b(p, j);
      y(i, j) = alpha * sum + (beta == 0.0 ? 0.0 : beta * (*c)(i, j));
    }
  }
  return y;
}

/// log p(target), loss and its gradient for every row of logits; rows with mask 0 have no loss and no
/// gradient.
struct ReferenceCrossEntropy {
  Matrix log_probability;  ///< (n, 1)
  Matrix gradient;         ///< (n, V) of loss_with_z
  double loss_with_z = 0.0, loss = 0.0;
};

inline ReferenceCrossEntropy reference_cross_entropy(const Matrix& logits,
                                                     const std::vector<int32_t>& targets,
                                                     const std::vector<uint8_t>& mask, double z_loss) {
  ReferenceCrossEntropy result{Matrix(logits.rows, 1), Matrix(logits.rows, logits.cols)};
  for (int64_t i = 0; i < logits.rows; ++i) {
    double max = logits(i, 0), sum = 0.0;
    for (int64_t j = 0; j < logits.cols; ++j) max = std::max(max, logits(i, j));
    for (int64_t j = 0; j < logits.cols; ++j) sum += std::exp(logits(i, j) - max);
    const double log_z = max + std::log(sum);
    const double log_p = logits(i, targets[i]) - log_z;
    result.log_probability(i, 0) = log_p;
    if (mask[i] == 0) continue;
    result.loss += -log_p;
    result.loss_with_z += -log_p + z_loss * log_z * log_z;
    for (int64_t j = 0; j < logits.cols; ++j) {
      const double p = std::exp(logits(i, j) - log_z);
      result.gradient(i, j) = p - (j == targets[i] ? 1.0 : 0.0) + 2.0 * z_loss * log_z * p;
    }
  }
  return result;
}

struct ReferenceAdafactor {
  double decay = 0.0, learning_rate = 0.0;
  double epsilon1 = 1e-30, epsilon2 = 1e-3, clip_threshold = 1.0;
};

inline double reference_rms(const Matrix& m) {
  double sum = 0.0;
  for (const double x : m.values) sum += x * x;
  return std::sqrt(sum / static_cast<double>(m.values.size()));
}

/// p <- p - lr max(RMS(p), eps2) u / max(1, RMS(u) / threshold)
inline void reference_adafactor_step(Matrix& p, const Matrix& u, const ReferenceAdafactor& rule) {
  const double size = rule.learning_rate * std::max(reference_rms(p), rule.epsilon2) /
                      std::max(1.0, reference_rms(u) / rule.clip_threshold);
  for (std::size_t i = 0; i < p.values.size(); ++i) p.values[i] -= size * u.values[i];
}

/// One step of one whole parameter, unfactored: v and p are updated.
inline void reference_adafactor(Matrix& p, Matrix& v, const Matrix& g, const ReferenceAdafactor& rule) {
  Matrix u(p.rows, p.cols);
  for (std::size_t i = 0; i < p.values.size(); ++i) {
    v.values[i] = rule.decay * v.values[i] + (1.0 - rule.decay) * (g.values[i] * g.values[i] + rule.epsilon1);
    u.values[i] = g.values[i] / std::sqrt(v.values[i]);
  }
  reference_adafactor_step(p, u, rule);
}

/// One step of one whole parameter, factored: v_row (r, 1) and v_col (c, 1) are means over the other dim.
inline void reference_adafactor_factored(Matrix& p, Matrix& v_row, Matrix& v_col, const Matrix& g,
                                         const ReferenceAdafactor& rule) {
  Matrix row_mean(p.rows, 1), col_mean(p.cols, 1), u(p.rows, p.cols);
  for (int64_t i = 0; i < p.rows; ++i) {
    for (int64_t j = 0; j < p.cols; ++j) {
      const double square = g(i, j) * g(i, j) + rule.epsilon1;
      row_mean(i, 0) += square / static_cast<double>(p.cols);
      col_mean(j, 0) += square / static_cast<double>(p.rows);
    }
  }
  double mean = 0.0;
  for (int64_t i = 0; i < p.rows; ++i) {
    v_row(i, 0) = rule.decay * v_row(i, 0) + (1.0 - rule.decay) * row_mean(i, 0);
    mean += v_row(i, 0) / static_cast<double>(p.rows);
  }
  for (int64_t j = 0; j < p.cols; ++j) {
    v_col(j, 0) = rule.decay * v_col(j, 0) + (1.0 - rule.decay) * col_mean(j, 0);
  }
  for (int64_t i = 0; i < p.rows; ++i) {
    for (int64_t j = 0; j < p.cols; ++j)
      u(i, j) = g(i, j) / std::sqrt(v_row(i, 0) / mean) / std::sqrt(v_col(j, 0));
  }
  reference_adafactor_step(p, u, rule);
}

}  // namespace red::test

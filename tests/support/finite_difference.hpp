// Gradients by central differences in float64: what the float64 references of backward passes are held to.
#pragma once

#include "support/matrix.hpp"

namespace red::test {

/// d loss / d x at x, element by element. `step`: the error is about step^2 + 1e-16 / step.
template <class Loss>
Matrix finite_difference(const Matrix& x, const Loss& loss, double step = 1e-5) {
  Matrix gradient(x.rows, x.cols), at = x;
  for (std::size_t i = 0; i < x.values.size(); ++i) {
    at.values[i] = x.values[i] + step;
    const double above = loss(at);
    at.values[i] = x.values[i] - step;
    const double below = loss(at);
    at.values[i] = x.values[i];
    gradient.values[i] = (above - below) / (2.0 * step);
  }
  return gradient;
}

}  // namespace red::test

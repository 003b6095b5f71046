// What tests of products share: the forms of operands, and how exact a product is.
#pragma once

#include "ops/matmul.hpp"
#include "support/compare.hpp"
#include "support/matrix.hpp"

namespace red::ops {

inline constexpr Transpose kTransposes[] = {Transpose::no, Transpose::yes};

/// The stored form of an operand, with padded rows.
template <class OwnedTensor = test::FloatTensor>
OwnedTensor stored(const test::Matrix& m, Transpose transpose, int64_t padding) {
  return OwnedTensor(transpose == Transpose::yes ? test::transposed(m) : m, padding);
}

/// fp32 sums of k products of N(0, 1): errors grow like sqrt(k) roundings of a value of about sqrt(k).
inline test::Tolerance tolerance(int64_t k) {
  return {.absolute = 3e-7 * static_cast<double>(k + 1)};
}

/// The same, and the result rounded once.
inline test::Tolerance bf16_tolerance(int64_t k) {
  return {tolerance(k).absolute, test::kBf16Rounding};
}

}  // namespace red::ops

// Private to ops: what every backend's matmul asks of its arguments.
#pragma once

#include "ops/matmul.hpp"
#include "ops/rows.hpp"

namespace red::ops {

/// c (m, n), op(a) (m, k), op(b) (k, n).
struct MatmulSizes {
  int64_t m, n, k;
};

/// Throws LogicError where shapes or dtypes do not fit.
inline MatmulSizes checked_sizes(const Tensor& c, const Tensor& a, Transpose transpose_a, const Tensor& b,
                                 Transpose transpose_b) {
  const bool ta = transpose_a == Transpose::yes, tb = transpose_b == Transpose::yes;
  const int64_t m = c.rows, n = c.cols, k = ta ? a.rows : a.cols;
  RED_CHECK((ta ? a.cols : a.rows) == m && (tb ? b.rows : b.cols) == n && (tb ? b.cols : b.rows) == k,
            "c ({}, {}), a ({}, {}){}, b ({}, {}){}", m, n, a.rows, a.cols, ta ? "^T" : "", b.rows, b.cols,
            tb ? "^T" : "");
  RED_CHECK(is_element(c.dtype) && is_element(a.dtype) && a.dtype == b.dtype, "{} = {} {}", name_of(c.dtype),
            name_of(a.dtype), name_of(b.dtype));
  return {m, n, k};
}

}  // namespace red::ops

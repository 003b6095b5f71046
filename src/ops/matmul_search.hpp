// How fast a matrix product could be at best: what `redllm bench ops` holds a step's products to. Shapes as
// in matmul.hpp.
#pragma once

#include <optional>

#include "ops/matmul.hpp"

namespace red::ops {

struct MatmulSearch {
  double seconds = 0.0;  ///< of one product, by the fastest way that was found
  int tried = 0;         ///< ways
};

/// Times the library's ways to do this product, far more of them than `matmul` does before it chooses one.
/// What is in c afterwards means nothing. Nothing where there is one way alone, as on the CPU, or where
/// matmul does not leave the product to the library in one piece.
std::optional<MatmulSearch> search_matmul(Stream& stream, const Tensor& c, const Tensor& a,
                                          Transpose transpose_a, const Tensor& b, Transpose transpose_b,
                                          float alpha, float beta);

}  // namespace red::ops

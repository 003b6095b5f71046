// Private to the CUDA backend: matrix products by cuBLASLt. Shapes: op(a) (m, k), op(b) (k, n), c (m, n),
// row-major with any row strides.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <vector>

#include "base/dtype.hpp"
#include "device/buffer.hpp"
#include "device/gemm_algorithms.hpp"

namespace red::detail {

/// How fp32 matrices are multiplied: as fp32, or rounded to TF32's 10 bits first, several times faster.
enum class Fp32Products : bool { exact = false, tf32 = true };

/// c = alpha op(a) op(b) + beta c; sums are fp32. a and b are both bf16, and c is bf16 or fp32, or all are
/// fp32. None of m, n, k is 0. ld*: elements from one row to the next of the stored matrices.
struct GemmProblem {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  void* c;
  int64_t ldc;
  DType ab_dtype, c_dtype;
  float alpha, beta;
  Fp32Products fp32_products;
};

class CublasLtGemm {
 public:
  CublasLtGemm();
  ~CublasLtGemm();
  CublasLtGemm(const CublasLtGemm&) = delete;
  CublasLtGemm& operator=(const CublasLtGemm&) = delete;

  /// In stream order. The first product of a shape looks for the fastest algorithm, which takes as long as
  /// some tens of products, and perhaps memory of c's size for that long; it remembers it in a file
  /// (gemm_algorithms.hpp).
  void multiply(cudaStream_t stream, const GemmProblem& problem);

 private:
  struct Call;
  /// Made by the first product, as the algorithms are read by it: many streams never multiply.
  void prepare();
  GemmAlgorithm find(cudaStream_t stream, const GemmProblem& problem, const Call& call);
  GemmAlgorithm fastest(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                        const std::vector<GemmAlgorithm>& candidates);
  cublasStatus_t run(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                     const GemmAlgorithm& algorithm);
  float milliseconds(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                     const GemmAlgorithm& algorithm);

  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  GemmAlgorithms algorithms_;
};

}  // namespace red::detail

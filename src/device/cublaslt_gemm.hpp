// Private to the CUDA backend: matrix products by cuBLASLt. Shapes: op(a) (m, k), op(b) (k, n), c (m, n),
// row-major with any row strides.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <functional>
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

/// What a wide search for one product found.
struct GemmSearch {
  double seconds = 0.0;  ///< of the fastest
  int tried = 0;         ///< algorithms
};

class CublasLtGemm {
 public:
  CublasLtGemm();
  ~CublasLtGemm();
  CublasLtGemm(const CublasLtGemm&) = delete;
  CublasLtGemm& operator=(const CublasLtGemm&) = delete;

  /// In stream order. The first product of a shape looks for the fastest algorithm, which takes as long as
  /// some tens of products, and perhaps memory of c's size for that long; it remembers it in a file
  /// (gemm_algorithms.hpp). await_stream is called before: the search waits for the stream, and cannot notice
  /// that the stream waits for a rank that is lost.
  void multiply(cudaStream_t stream, const GemmProblem& problem, const std::function<void()>& await_stream);

  /// The fastest of all that cuBLASLt proposes, up to 200, for benchmarks: each runs 20 times. c is spoilt.
  /// The algorithm that multiply() uses stays.
  GemmSearch search(cudaStream_t stream, const GemmProblem& problem);

 private:
  struct Call;
  /// Made by the first product, as the algorithms are read by it: many streams never multiply.
  void prepare();
  GemmAlgorithm find(cudaStream_t stream, const GemmProblem& problem, const Call& call);
  std::vector<GemmAlgorithm> proposals(const GemmProblem& problem, const Call& call, int most);
  GemmAlgorithm fastest(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                        const std::vector<GemmAlgorithm>& candidates);
  cublasStatus_t run(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                     const GemmAlgorithm& algorithm);
  /// Of one product, the mean of some.
  float milliseconds(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                     const GemmAlgorithm& algorithm, int repeats);

  cublasLtHandle_t handle_ = nullptr;
  Buffer workspace_;
  GemmAlgorithms algorithms_;
};

}  // namespace red::detail

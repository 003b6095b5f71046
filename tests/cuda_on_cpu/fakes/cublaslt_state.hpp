// Private to the fake of cuBLASLt: what is in its opaque structs, and one slow product.
#pragma once

#include <cublasLt.h>

#include <cstddef>
#include <cstdint>

namespace cuda_on_cpu {

struct Layout {
  cudaDataType_t type = CUDA_R_32F;
  uint64_t rows = 0, cols = 0;
  int64_t row_stride = 0;  ///< from one column to the next: matrices are column-major
};

struct Product {
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  cudaDataType_t scale_type = CUDA_R_32F;
  int32_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
};

struct Preference {
  uint64_t workspace_bytes = 0;
  uint32_t reduction_schemes = CUBLASLT_REDUCTION_SCHEME_MASK;
  // The real one takes 256 for granted unless it is told otherwise.
  uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256, alignment_d = 256;
};

/// What a heuristic found, and what it relies on.
struct Algorithm {
  uint64_t magic = 0;
  uint64_t number = 0;
  uint64_t workspace_bytes = 0;
  uint32_t alignment_a = 0, alignment_b = 0, alignment_c = 0, alignment_d = 0;
  bool adds_in_output_type = false;  ///< the sum is cut in two, and each half rounded
};

struct Operand {
  const void* data;
  Layout layout;
};

/// d = alpha op(a) op(b) + beta c, sums in fp32 but where the algorithm rounds; device memory must be open.
void multiply(const Product& product, const Algorithm& algorithm, float alpha, const Operand& a,
              const Operand& b, float beta, const Operand& c, void* d, const Layout& d_layout);

}  // namespace cuda_on_cpu

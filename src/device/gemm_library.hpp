// Which library multiplies matrices, and on the CPU the serial GEMM under every product. OpenBLAS and oneDNN
// are loaded when the first stream is made, not at program start, so that `redllm --help` pays nothing and a
// machine may lack either; a plain loop of ours is always there. matmul splits its work over threads itself
// and calls this per tile.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/bf16.hpp"

namespace red {

/// c (m, n) = alpha op(a) (m, k) op(b) (k, n) + beta c; row-major, ld* elements from one row to the next of
/// the stored (not transposed) matrices; runs on the calling thread alone. beta = 0 does not read c.
template <class T>
using GemmFunctionOf = void (*)(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                                float alpha, const T* a, int64_t lda, const T* b, int64_t ldb, float beta,
                                float* c, int64_t ldc);
using GemmFunction = GemmFunctionOf<float>;
using Bf16GemmFunction = GemmFunctionOf<bf16>;
/// The same with bf16 a, b and c: summed in fp32, rounded once.
using RoundedGemmFunction = void (*)(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                                     float alpha, const bf16* a, int64_t lda, const bf16* b, int64_t ldb,
                                     float beta, bf16* c, int64_t ldc);

/// openblas, onednn and plain are the CPU's; tf32 is the GPU's, where automatic multiplies fp32 exactly.
enum class GemmChoice { automatic, openblas, onednn, plain, tf32 };

/// By its name in train.gemm. Throws ConfigError for one that the linked backend does not have.
GemmChoice parse_gemm_choice(std::string_view text);
std::string_view name_of(GemmChoice choice);

struct GemmLibrary {
  GemmChoice choice = GemmChoice::plain;  ///< what it is; on the CPU never automatic
  GemmFunction sgemm = nullptr;           ///< of the CPU, like bf16gemm
  std::string description;                ///< for logs: the library's own name and version
  /// bf16 a and b, fp32 sums; null where the library or the CPU has no bf16 arithmetic.
  Bf16GemmFunction bf16gemm = nullptr;
  /// Null where the library has none; then a result is summed in fp32 and rounded by us.
  RoundedGemmFunction rounded_bf16gemm = nullptr;
  bool amx = false;  ///< bf16 by our own AMX kernels (amx_tiles.hpp), attention's too

  bool has_bf16_arithmetic() const;
};

/// Whether the library can be loaded and multiplies rightly on this CPU.
bool gemm_usable(GemmChoice choice);

/// The library to use. The result is the same object for the life of the process.
const GemmLibrary& gemm_library(GemmChoice choice = GemmChoice::automatic);

/// The same with our own bf16 products where the processor has bf16 arithmetic, as the automatic one is: by
/// AMX, otherwise by AVX512_BF16's dot products of pairs.
const GemmLibrary& gemm_library_with_bf16(GemmChoice choice);

}  // namespace red

// Products of bf16 by dot products of pairs (AVX512_BF16), where there is no AMX. Of what two cores of a Zen
// 4 can do at most in registers they reach 79 to 91 %, oneDNN 2.6 70 to 88 % (docs/adr/0019).
#include "device/gemm_libraries.hpp"
#include "device/max_cpu.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

#include "device/avx512_bf16.hpp"
#define RED_GEMM RED_AVX512_BF16
#include "device/gemm_blocks-inl.hpp"

namespace red::detail {
namespace {

/// 1.6 MiB a thread, a third of it panels.
struct Pairs {
  static constexpr int64_t kRows = 512, kCols = 512, kDepth = 512;
  static constexpr bool kAsksAhead = true;

  /// A panel of a^T will do, and need not be transposed.
  RED_AVX512_BF16_INLINE static void copy_transposed(bf16* to, int64_t, const bf16* source, int64_t stride,
                                                     int64_t rows, int64_t cols) {
    avx512::pack_panels(to, source, stride, cols, rows);
  }
  RED_AVX512_BF16_INLINE static void multiply(float* c, int64_t c_stride, const bf16* a, int64_t a_stride,
                                              bool transposed, const bf16* b, int64_t steps,
                                              avx512::Sum sum) {
    if (transposed) return avx512::multiply_panel_by_pairs(c, c_stride, a, b, steps, sum);
    avx512::multiply_by_pairs(c, c_stride, a, a_stride, b, steps, sum);
  }
};

template <class T>
void pairs_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float beta, T* c, int64_t ldc) {
  multiply_blocks<Pairs>(Product<T>{transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc});
}

}  // namespace

std::optional<Bf16Products> load_pairs() {
  if (max_cpu() == MaxCpu::avx2 || !__builtin_cpu_supports("avx512bf16")) return std::nullopt;
  return Bf16Products{pairs_gemm<float>, pairs_gemm<bf16>};
}

}  // namespace red::detail

#else

namespace red::detail {

std::optional<Bf16Products> load_pairs() {
  return std::nullopt;
}

}  // namespace red::detail

#endif

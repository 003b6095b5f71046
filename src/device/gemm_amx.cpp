// Products of bf16 by AMX. oneDNN 2.6 has them too and takes 1.2 to 1.4 times as long for results in bf16,
// which it cannot round (docs/adr/0019).
// Blocks of b (kDepth, kCols) become panels that stay in the second-level cache, 32 rows of a are copied into
// the first-level one, where their stride cannot put all of them into the same cache sets.
#include "device/amx_tiles.hpp"
#include "device/gemm_libraries.hpp"
#include "device/max_cpu.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "base/check.hpp"

namespace red::detail {
namespace {

constexpr int64_t kRows = 512, kCols = 512, kDepth = 256;
// Strides that are no power of two, for the cache sets' sake.
constexpr int64_t kRowStride = kDepth + 32, kSumStride = kCols + 16;

/// Of one thread: 1.3 MiB.
struct alignas(64) Scratch {
  bf16 panels[kDepth * kCols];
  bf16 rows[amx::kBlock * kRowStride];
  float sums[kRows * kSumStride];
};

template <class T>
struct Product {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  float alpha;
  const bf16* a;
  int64_t lda;
  const bf16* b;
  int64_t ldb;
  float beta;
  T* c;
  int64_t ldc;
};

RED_AMX_INLINE __m512 load(const float* from, __mmask16 mask) {
  return _mm512_maskz_loadu_ps(mask, from);
}
RED_AMX_INLINE __m512 load(const bf16* from, __mmask16 mask) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
RED_AMX_INLINE void store(float* to, __mmask16 mask, __m512 x) {
  _mm512_mask_storeu_ps(to, mask, x);
}
RED_AMX_INLINE void store(bf16* to, __mmask16 mask, __m512 x) {
  _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

/// c's (rows, cols) from (row, col) on = alpha sums + beta c
template <class T>
RED_AMX void finish(const Product<T>& p, const float* sums, int64_t stride, int64_t row, int64_t col,
                    int64_t rows, int64_t cols) {
  const __m512 alpha = _mm512_set1_ps(p.alpha), beta = _mm512_set1_ps(p.beta);
  for (int64_t i = 0; i < rows; ++i) {
    T* c = p.c + (row + i) * p.ldc + col;
    for (int64_t j = 0; j < cols; j += 16) {
      const __mmask16 mask = amx::first_of_16(cols - j);
      __m512 x = _mm512_mul_ps(alpha, _mm512_loadu_ps(sums + i * stride + j));
      if (p.beta != 0.0F) x = _mm512_fmadd_ps(beta, load(c + j, mask), x);
      store(c + j, mask, x);
    }
  }
}

/// A block of c, at most (kRows, kCols).
template <class T>
RED_AMX void multiply_block(const Product<T>& p, int64_t row, int64_t col, int64_t rows, int64_t cols,
                            Scratch& scratch) {
  const bool one_depth = p.k <= kDepth;
  for (int64_t depth = 0; depth < p.k; depth += kDepth) {
    const int64_t count = std::min(kDepth, p.k - depth), steps = amx::padded(count) / amx::kBlock;
    if (p.transpose_b) {
      amx::pack_transposed_panels(scratch.panels, p.b + col * p.ldb + depth, p.ldb, count, cols);
    } else {
      amx::pack_panels(scratch.panels, p.b + depth * p.ldb + col, p.ldb, count, cols);
    }
    for (int64_t i = 0; i < rows; i += amx::kBlock) {
      if (p.transpose_a) {
        amx::copy_transposed(scratch.rows, kRowStride, p.a + depth * p.lda + row + i, p.lda, rows - i, count);
      } else {
        amx::copy_rows(scratch.rows, kRowStride, p.a + (row + i) * p.lda + depth, p.lda, rows - i, count);
      }
      for (int64_t j = 0; j < cols; j += amx::kBlock) {
        float* sums = one_depth ? scratch.sums : scratch.sums + i * kSumStride + j;
        amx::multiply(sums, kSumStride, scratch.rows, kRowStride, scratch.panels + j * steps * amx::kBlock,
                      steps, depth == 0 ? amx::Sum::begin : amx::Sum::add);
        if (one_depth) {
          finish(p, sums, kSumStride, row + i, col + j, std::min(amx::kBlock, rows - i),
                 std::min(amx::kBlock, cols - j));
        }
      }
    }
  }
  if (!one_depth) finish(p, scratch.sums, kSumStride, row, col, rows, cols);
}

template <class T>
RED_AMX void multiply(const Product<T>& p) {
  static thread_local const auto scratch = std::make_unique<Scratch>();
  const amx::Tiles tiles;
  for (int64_t col = 0; col < p.n; col += kCols) {
    for (int64_t row = 0; row < p.m; row += kRows)
      multiply_block(p, row, col, std::min(kRows, p.m - row), std::min(kCols, p.n - col), *scratch);
  }
}

template <class T>
void amx_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const bf16* a,
              int64_t lda, const bf16* b, int64_t ldb, float beta, T* c, int64_t ldc) {
  RED_CHECK(k > 0, "an empty sum");
  multiply(Product<T>{transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc});
}

/// The processor has it, and the kernel lets this process use it.
bool amx_there() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr unsigned amx_bf16 = 1U << 22U, amx_tile = 1U << 24U, avx512bf16 = 1U << 5U;
  if ((edx & amx_bf16) == 0 || (edx & amx_tile) == 0) return false;
  if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) == 0 || (eax & avx512bf16) == 0) return false;
  // Linux saves tiles only for processes that asked (Documentation/arch/x86/xstate.rst).
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

std::optional<Bf16Products> load_amx() {
  if (max_cpu() != MaxCpu::all || !amx_there()) return std::nullopt;
  return Bf16Products{amx_gemm<float>, amx_gemm<bf16>};
}

}  // namespace red::detail

#else

namespace red::detail {

std::optional<Bf16Products> load_amx() {
  return std::nullopt;
}

}  // namespace red::detail

#endif

// Products of bf16 matrices cut into blocks that stay in the caches, for gemm_amx.cpp and gemm_pairs.cpp.
// Each includes this once, behind RED_GEMM: the processor that functions are compiled for. Blocks of b
// (depth, cols) become panels (avx512_bf16.hpp) that stay in the second-level cache; 32 rows of a are copied
// into the first-level one, where their stride cannot put all of them into the same cache sets. Sums are
// fp32; a result in bf16 is rounded once.
// Bound: arithmetic; copies and panels cost 3 to 10 % beside it, less the larger the block.
#pragma once

#include <algorithm>
#include <memory>

#include "base/check.hpp"
#include "device/avx512_bf16.hpp"

namespace red::detail {
namespace {

/// Elements between rows of sums: no power of two, for the cache sets' sake.
template <class Arithmetic>
constexpr int64_t kSumStride = Arithmetic::kCols + 16;
template <class Arithmetic>
constexpr int64_t kRowStride = Arithmetic::kDepth + 32;

/// Of one thread.
template <class Arithmetic>
struct alignas(64) Scratch {
  bf16 panels[Arithmetic::kDepth * Arithmetic::kCols];
  bf16 rows[avx512::kBlock * kRowStride<Arithmetic>];
  float sums[Arithmetic::kRows * kSumStride<Arithmetic>];
};

/// c (m, n) = alpha op(a) (m, k) op(b) (k, n) + beta c
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

RED_GEMM inline __m512 load(const float* from, __mmask16 mask) {
  return _mm512_maskz_loadu_ps(mask, from);
}
RED_GEMM inline __m512 load(const bf16* from, __mmask16 mask) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}
RED_GEMM inline void store(float* to, __mmask16 mask, __m512 x) {
  _mm512_mask_storeu_ps(to, mask, x);
}
RED_GEMM inline void store(bf16* to, __mmask16 mask, __m512 x) {
  _mm256_mask_storeu_epi16(to, mask, reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

/// c's (rows, cols) from (row, col) on = alpha sums + beta c
template <class T>
RED_GEMM void finish(const Product<T>& p, const float* sums, int64_t stride, int64_t row, int64_t col,
                     int64_t rows, int64_t cols) {
  const __m512 alpha = _mm512_set1_ps(p.alpha), beta = _mm512_set1_ps(p.beta);
  for (int64_t i = 0; i < rows; ++i) {
    T* c = p.c + (row + i) * p.ldc + col;
    for (int64_t j = 0; j < cols; j += 16) {
      const __mmask16 mask = avx512::first_of_16(cols - j);
      __m512 x = _mm512_mul_ps(alpha, _mm512_loadu_ps(sums + i * stride + j));
      if (p.beta != 0.0F) x = _mm512_fmadd_ps(beta, load(c + j, mask), x);
      store(c + j, mask, x);
    }
  }
}

/// A part of a matrix as it is stored.
template <class T>
struct Part {
  const T* from = nullptr;
  int64_t stride = 0, rows = 0, cols = 0;

  /// Asks for the share `step` of `steps` of its rows, ahead of their use.
  RED_GEMM void ask_for(int64_t step, int64_t steps) const {
    for (int64_t i = rows * step / steps; i < rows * (step + 1) / steps; ++i) {
      for (int64_t j = 0; j < cols; j += 64 / sizeof(T))
        _mm_prefetch(reinterpret_cast<const char*>(from + i * stride + j), _MM_HINT_T1);
    }
  }
};

/// One block of c, at most (kRows, kCols), by panels of b that are made depth by depth.
template <class Arithmetic, class T>
class BlockOfProduct {
 public:
  RED_GEMM BlockOfProduct(const Product<T>& product, int64_t row, int64_t col, Scratch<Arithmetic>& scratch)
      : p_(product),
        row_(row),
        col_(col),
        rows_(std::min(Arithmetic::kRows, product.m - row)),
        cols_(std::min(Arithmetic::kCols, product.n - col)),
        scratch_(scratch) {}

  RED_GEMM void multiply() {
    for (int64_t depth = 0; depth < p_.k; depth += Arithmetic::kDepth) {
      // The blocks above had the same panels where one depth is all.
      if (row_ == 0 || p_.k > Arithmetic::kDepth) pack(depth);
      for (int64_t i = 0; i < rows_; i += avx512::kBlock) {
        copy_rows(depth, i);
        multiply_rows(depth, i);
      }
    }
  }

 private:
  int64_t count(int64_t depth) const { return std::min(Arithmetic::kDepth, p_.k - depth); }

  Part<bf16> part_of_a(int64_t depth, int64_t i) const {
    const int64_t rows = std::min(avx512::kBlock, rows_ - i);
    return p_.transpose_a ? Part<bf16>{p_.a + depth * p_.lda + row_ + i, p_.lda, count(depth), rows}
                          : Part<bf16>{p_.a + (row_ + i) * p_.lda + depth, p_.lda, rows, count(depth)};
  }
  Part<bf16> part_of_b(int64_t depth) const {
    return p_.transpose_b ? Part<bf16>{p_.b + col_ * p_.ldb + depth, p_.ldb, cols_, count(depth)}
                          : Part<bf16>{p_.b + depth * p_.ldb + col_, p_.ldb, count(depth), cols_};
  }

  RED_GEMM void pack(int64_t depth) {
    const Part<bf16> b = part_of_b(depth);
    if (p_.transpose_b) {
      avx512::pack_transposed_panels(scratch_.panels, b.from, b.stride, b.cols, b.rows);
    } else {
      avx512::pack_panels(scratch_.panels, b.from, b.stride, b.rows, b.cols);
    }
  }

  RED_GEMM void copy_rows(int64_t depth, int64_t i) {
    const Part<bf16> a = part_of_a(depth, i);
    if (p_.transpose_a) {
      Arithmetic::copy_transposed(scratch_.rows, kRowStride<Arithmetic>, a.from, a.stride, a.cols, a.rows);
    } else {
      avx512::copy_rows(scratch_.rows, kRowStride<Arithmetic>, a.from, a.stride, a.rows, a.cols);
    }
  }

  /// 32 rows from i on, all columns of the block.
  RED_GEMM void multiply_rows(int64_t depth, int64_t i) {
    const int64_t steps = avx512::padded(count(depth)) / avx512::kBlock, next = depth + Arithmetic::kDepth;
    const bool one_depth = p_.k <= Arithmetic::kDepth, last = next >= p_.k;
    const Part<bf16> next_rows = i + avx512::kBlock < rows_ ? part_of_a(depth, i + avx512::kBlock)
                                 : last                     ? Part<bf16>{}
                                                            : part_of_a(next, 0);
    const Part<bf16> next_b = last ? Part<bf16>{} : part_of_b(next);
    const int64_t panels = avx512::padded(cols_) / avx512::kBlock,
                  strips = avx512::padded(rows_) / avx512::kBlock, rows = std::min(avx512::kBlock, rows_ - i);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t j = panel * avx512::kBlock, cols = std::min(avx512::kBlock, cols_ - j);
      if constexpr (Arithmetic::kAsksAhead) {
        next_rows.ask_for(panel, panels);
        next_b.ask_for(i / avx512::kBlock * panels + panel, strips * panels);
        if (last) Part<T>{p_.c + (row_ + i) * p_.ldc + col_ + j, p_.ldc, rows, cols}.ask_for(0, 1);
      }
      float* sums = one_depth ? scratch_.sums : scratch_.sums + i * kSumStride<Arithmetic> + j;
      Arithmetic::multiply(sums, kSumStride<Arithmetic>, scratch_.rows, kRowStride<Arithmetic>,
                           p_.transpose_a, scratch_.panels + j * steps * avx512::kBlock, steps,
                           depth == 0 ? avx512::Sum::begin : avx512::Sum::add);
      if (last) {
        finish(p_, sums, kSumStride<Arithmetic>, row_ + i, col_ + j, rows, cols);
      }
    }
  }

  const Product<T>& p_;
  int64_t row_, col_, rows_, cols_;
  Scratch<Arithmetic>& scratch_;
};

/// The same for results in fp32 and bf16.
template <class Arithmetic>
Scratch<Arithmetic>& scratch_of_thread() {
  static thread_local const auto scratch = std::make_unique<Scratch<Arithmetic>>();
  return *scratch;
}

template <class Arithmetic, class T>
RED_GEMM void multiply_blocks(const Product<T>& p) {
  Scratch<Arithmetic>& scratch = scratch_of_thread<Arithmetic>();
  RED_CHECK(p.k > 0, "an empty sum");
  for (int64_t col = 0; col < p.n; col += Arithmetic::kCols) {
    for (int64_t row = 0; row < p.m; row += Arithmetic::kRows)
      BlockOfProduct<Arithmetic, T>(p, row, col, scratch).multiply();
  }
}

}  // namespace
}  // namespace red::detail

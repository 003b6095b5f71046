// Matrix products of attention's tiles, (rows, k) by (k, columns) in blocks of (kMr, kNr). Operands are first
// copied into panels (columns in groups of kNr, all rows of a group one after another), which stay in the
// cache while many small products use them; a library GEMM would copy them for every product. Bound by
// multiply-adds: a step loads 2 vectors of b and kMr numbers of a for 2 kMr of them. Panels are fp32,
// whatever their sources hold. Included once per CPU target.
#if defined(RED_OPS_ATTENTION_TILES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef RED_OPS_ATTENTION_TILES_INL_HPP
#undef RED_OPS_ATTENTION_TILES_INL_HPP
#else
#define RED_OPS_ATTENTION_TILES_INL_HPP
#endif

#include <algorithm>

#include "ops/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {

// One micro-kernel makes kMr rows and kNr columns, held in registers: 12 of 16 with AVX2, 24 of 32 with
// AVX-512.
constexpr int64_t kVectors = 2;
constexpr int64_t kNr = kVectors * static_cast<int64_t>(hn::MaxLanes(FloatTag()));
constexpr int64_t kMr = HWY_TARGET == HWY_AVX3 ? 12 : 6;

constexpr int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

using Sums = FloatVec[kMr][kVectors];

HWY_INLINE void set_zero(Sums& sums) {
#pragma GCC unroll 12
  for (int64_t m = 0; m < kMr; ++m) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) sums[m][v] = hn::Zero(FloatTag());
  }
}

/// Holds a vector in a register: GCC would rather load it again for every product, which costs a third of the
/// speed.
HWY_INLINE void keep_in_register(FloatVec& v) {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC_ACTUAL  // clang 14 refuses the operand
  __asm__("" : "+v"(v.raw));
#else
  (void)v;
#endif
}

/// sums(m, n) += sum over i < count of a[m kRow + i kStep] b[i kNr + n]. The order of the sum is that of i.
template <int64_t kRow, int64_t kStep>
HWY_INLINE void accumulate(Sums& sums, const float* HWY_RESTRICT a, const float* HWY_RESTRICT b,
                           int64_t count) {
  const FloatTag d;
  for (int64_t i = 0; i < count; ++i) {
    FloatVec b0 = hn::Load(d, b), b1 = hn::Load(d, b + kNr / kVectors);
    keep_in_register(b0);
    keep_in_register(b1);
#pragma GCC unroll 12
    for (int64_t m = 0; m < kMr; ++m) {
      const FloatVec am = hn::Set(d, a[m * kRow]);
      sums[m][0] = hn::MulAdd(am, b0, sums[m][0]);
      sums[m][1] = hn::MulAdd(am, b1, sums[m][1]);
    }
    a += kStep;
    b += kNr;
  }
}

/// store(old value of c, sum, m) for every vector of c (kMr, kNr), c's rows being `stride` apart.
template <class Store>
HWY_INLINE void store_sums(const Sums& sums, float* HWY_RESTRICT c, int64_t stride, const Store& store) {
  const FloatTag d;
#pragma GCC unroll 12
  for (int64_t m = 0; m < kMr; ++m) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < kVectors; ++v) {
      float* p = c + m * stride + v * (kNr / kVectors);
      hn::Store(store(p, sums[m][v], m), d, p);
    }
  }
}

/// c (kMr, kNr) = a b with a (kMr rows from `a` on, width) in panels of `panel_rows` rows, and b (width, kNr)
/// one panel.
HWY_INLINE void multiply_panels(float* HWY_RESTRICT c, int64_t stride, const float* HWY_RESTRICT a,
                                int64_t panel_rows, const float* HWY_RESTRICT b, int64_t width) {
  Sums sums;
  set_zero(sums);
  for (int64_t i = 0; i < width; i += kNr) {
    accumulate<kNr, 1>(sums, a + i * panel_rows, b + i * kNr, std::min(kNr, width - i));
  }
  store_sums(sums, c, stride, [](const float*, FloatVec sum, int64_t) HWY_ATTR { return sum; });
}

/// Panels (panel_rows, width rounded up to kNr) of source (rows, width). Columns beyond the source are 0, and
/// so are rows up to the next multiple of kMr; further rows stay as they are.
template <class T>
HWY_ATTR void pack_panels(float* HWY_RESTRICT panels, int64_t panel_rows, const T* HWY_RESTRICT source,
                          int64_t stride, int64_t rows, int64_t width) {
  const FloatTag d;
  const WholeVector whole;
  const int64_t padding = round_up(rows, kMr) - rows;
  for (int64_t begin = 0; begin < width; begin += kNr, panels += panel_rows * kNr) {
    const int64_t cols = std::min(kNr, width - begin);
    float* to = panels;
    for (int64_t row = 0; row < rows; ++row, to += kNr) {
      const T* from = source + row * stride + begin;
      if (cols == kNr) {
        hn::Store(whole.load(d, from), d, to);
        hn::Store(whole.load(d, from + kNr / kVectors), d, to + kNr / kVectors);
      } else {
        for (int64_t i = 0; i < kNr; ++i) to[i] = i < cols ? static_cast<float>(from[i]) : 0.0F;
      }
    }
    std::fill_n(to, padding * kNr, 0.0F);
  }
}

/// to[i kNr + r] = from[r stride + i] for r < 4, i < width
template <class T>
HWY_ATTR void transpose_four_rows(float* HWY_RESTRICT to, const T* HWY_RESTRICT from, int64_t stride,
                                  int64_t width) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> d;
  const WholeVector whole;
  const hn::RepartitionToWide<decltype(d)> pairs;
  for (; i + 4 <= width; i += 4) {
    const auto r0 = whole.load(d, from + i), r1 = whole.load(d, from + stride + i);
    const auto r2 = whole.load(d, from + 2 * stride + i), r3 = whole.load(d, from + 3 * stride + i);
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, to + i * kNr);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, to + (i + 1) * kNr);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, to + (i + 2) * kNr);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, to + (i + 3) * kNr);
  }
#endif
  for (; i < width; ++i) {
    for (int64_t r = 0; r < 4; ++r) to[i * kNr + r] = from[r * stride + i];
  }
}

/// Panels (width, rows rounded up to kNr) of the transpose of source (rows, width); beyond the source 0.
template <class T>
HWY_ATTR void pack_transposed(float* HWY_RESTRICT panels, const T* HWY_RESTRICT source, int64_t stride,
                              int64_t rows, int64_t width) {
  for (int64_t begin = 0; begin < rows; begin += kNr, panels += width * kNr) {
    const T* from = source + begin * stride;
    int64_t r = 0;
    for (; r + 4 <= std::min(kNr, rows - begin); r += 4) {
      transpose_four_rows(panels + r, from + r * stride, stride, width);
    }
    for (; r < kNr; ++r) {
      const bool inside = begin + r < rows;
      for (int64_t i = 0; i < width; ++i)
        panels[i * kNr + r] = inside ? static_cast<float>(from[r * stride + i]) : 0.0F;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#endif

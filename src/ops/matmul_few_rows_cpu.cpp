// A task keeps its sums in fp32 on its stack. With b as it is (k, n), tasks are pages wide where that can be:
// the processor reads ahead within a page, and a core that has asked for 16 lines itself waits. Where b is
// narrow, tasks share k as well, and their sums are added up in one order. Panels of some of b's rows are
// taken to the L1 cache by the first rows of a and read there by the others, while the next panel is on its
// way from memory. With b^T (n, k), tasks are strips of c's columns, whose elements are dot products of rows.
#include <algorithm>
#include <type_traits>

#include "ops/matmul_few_rows.hpp"
#include "ops/matmul_few_rows_bf16.hpp"
#include "ops/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/matmul_few_rows_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/simd-inl.hpp"

#ifndef RED_OPS_MATMUL_FEW_ROWS_ARGS
#define RED_OPS_MATMUL_FEW_ROWS_ARGS
namespace red::ops {
namespace {

constexpr int64_t kStripCols = 2048;              // of b, at most: a page of a row of bf16
constexpr int64_t kSumsStride = kStripCols + 16;  // no power of two, for the cache sets' sake
constexpr int64_t kDepth = 16;                    // rows of b in a panel
constexpr int64_t kStripRows = 32;                // of b^T
constexpr int64_t kGroup = 6;                     // rows of a that share what is loaded of b

/// Some columns of c, or of what some rows of b contribute to them.
struct Strip {
  const Tensor &c, &a, &b;
  float alpha;
  int64_t col, cols;
  int64_t first = 0, end = 0;  ///< rows of b as it is; elsewhere all
  float* part = nullptr;       ///< gets the sums, rows c.cols apart; null: c does
};

}  // namespace
}  // namespace red::ops
#endif

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

// So that kGroup x kWide sums and what they are made of fit the registers: 32 of AVX-512, 16 of AVX2.
constexpr int64_t kWide = hn::MaxLanes(FloatTag()) >= 16 ? 4 : 2;

/// A row of the strip, complete.
void store_row(const Strip& strip, int64_t row, const float* sums) {
  with_element(strip.c.dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    const FloatTag d;
    const FloatVec alpha = hn::Set(d, strip.alpha);
    T* to = strip.c.as<T>() + row * strip.c.row_stride + strip.col;
    for_each_vector(strip.cols, [&](auto access, int64_t i) HWY_ATTR {
      access.store(hn::Mul(alpha, access.load(d, sums + i)), d, to + i);
    });
  });
}

/// Some rows of a strip of b, and the columns of a that they meet.
template <class T>
struct Panel {
  const T* b;
  int64_t stride, depth;  ///< of b's rows
  const float* a;         ///< (rows, kDepth)
  float* sums;            ///< (rows, kStripCols)
  bool prefetch;          ///< whether to ask for the next panel while this one is read
};

/// Asks for what lies behind a panel's row, as far ahead as the next panel, into the second-level cache: the
/// first has no room for it.
template <class T>
HWY_ATTR HWY_INLINE void prefetch_row(const T* next, int64_t cols) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t col = 0; col < cols; col += line) __builtin_prefetch(next + col, 0, 2);
}

/// sums += a b of kRows rows of a and kVectors vectors of columns.
template <int64_t kRows, int64_t kVectors, class T, class Access>
HWY_ATTR HWY_INLINE void add_block(const Panel<T>& panel, const Access& access, int64_t row, int64_t col) {
  const FloatTag d;
  const int64_t lanes = float_lanes();
  const float* a = panel.a + row * kDepth;
  float* sums = panel.sums + row * kSumsStride + col;
  const T* b = panel.b + col;
  FloatVec s[kRows][kVectors], w[kVectors];
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kVectors; ++v) s[r][v] = hn::Load(d, sums + r * kSumsStride + v * lanes);
  }
  for (int64_t p = 0; p < panel.depth; ++p, b += panel.stride) {
    for (int64_t v = 0; v < kVectors; ++v) w[v] = access.load(d, b + v * lanes);
    if (panel.prefetch) prefetch_row(b + panel.depth * panel.stride, kVectors * lanes);
    for (int64_t r = 0; r < kRows; ++r) {
      const FloatVec x = hn::Set(d, a[r * kDepth + p]);
      for (int64_t v = 0; v < kVectors; ++v) s[r][v] = hn::MulAdd(x, w[v], s[r][v]);
    }
  }
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t v = 0; v < kVectors; ++v) hn::Store(s[r][v], d, sums + r * kSumsStride + v * lanes);
  }
}

template <int64_t kRows, class T>
HWY_ATTR void add_group(const Panel<T>& panel, int64_t row, int64_t cols) {
  const int64_t lanes = float_lanes();
  int64_t col = 0;
  for (; col + kWide * lanes <= cols; col += kWide * lanes)
    add_block<kRows, kWide>(panel, WholeVector(), row, col);
  for (; col + lanes <= cols; col += lanes) add_block<kRows, 1>(panel, WholeVector(), row, col);
  if (col < cols) add_block<kRows, 1>(panel, FirstElements{cols - col}, row, col);
}

template <int64_t kNumber>
using Constant = std::integral_constant<int64_t, kNumber>;

/// f(Constant<number>(), first row) for groups of at most kGroup rows: loops over them are unrolled.
template <class F>
HWY_ATTR void for_each_group(int64_t rows, const F& f) {
  static_assert(kGroup == 6);
  for (int64_t row = 0; row < rows; row += kGroup) {
    switch (std::min(kGroup, rows - row)) {
      case 1:
        f(Constant<1>(), row);
        break;
      case 2:
        f(Constant<2>(), row);
        break;
      case 3:
        f(Constant<3>(), row);
        break;
      case 4:
        f(Constant<4>(), row);
        break;
      case 5:
        f(Constant<5>(), row);
        break;
      default:
        f(Constant<kGroup>(), row);
    }
  }
}

/// Columns p ... of a as fp32.
template <class T>
HWY_ATTR void load_columns(float* to, const Tensor& a, int64_t p, int64_t depth) {
  for (int64_t r = 0; r < a.rows; ++r) {
    const T* from = a.as<T>() + r * a.row_stride + p;
    for_each_vector(depth, [&](auto access, int64_t i) HWY_ATTR {
      access.store(access.load(FloatTag(), from + i), FloatTag(), to + r * kDepth + i);
    });
  }
}

template <class T>
HWY_ATTR void strip_of(const Strip& strip) {
  HWY_ALIGN float sums[kFewRows * kSumsStride];
  HWY_ALIGN float a[kFewRows * kDepth];
  const int64_t rows = strip.c.rows;
  for (int64_t r = 0; r < rows; ++r) std::fill_n(sums + r * kSumsStride, strip.cols, 0.0F);
  for (int64_t p = strip.first; p < strip.end; p += kDepth) {
    const int64_t depth = std::min(kDepth, strip.end - p);
    load_columns<T>(a, strip.a, p, depth);
    Panel<T> panel{strip.b.as<T>() + p * strip.b.row_stride + strip.col,
                   strip.b.row_stride,
                   depth,
                   a,
                   sums,
                   p + 2 * depth <= strip.end};
    for_each_group(rows, [&](auto group, int64_t row) HWY_ATTR {
      add_group<decltype(group)::value>(panel, row, strip.cols);
      panel.prefetch = false;  // the first group has
    });
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = sums + r * kSumsStride;
    if (strip.part == nullptr) {
      store_row(strip, r, row);
    } else {
      std::copy_n(row, strip.cols, strip.part + r * strip.c.cols + strip.col);
    }
  }
}

/// (kRows, kCols) dot products of rows of a with rows of b, both k long, into sums, whose rows are kStripRows
/// apart.
template <int64_t kRows, int64_t kCols, class T>
HWY_ATTR HWY_INLINE void dot_block(const T* a, int64_t a_stride, const T* b, int64_t b_stride, int64_t k,
                                   float* sums) {
  FloatVec s[kRows][kCols], w[kCols];
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t j = 0; j < kCols; ++j) s[r][j] = hn::Zero(FloatTag());
  }
  for_each_vector(k, [&](auto access, int64_t i) HWY_ATTR {
    for (int64_t j = 0; j < kCols; ++j) w[j] = access.load(FloatTag(), b + j * b_stride + i);
    for (int64_t r = 0; r < kRows; ++r) {
      const FloatVec x = access.load(FloatTag(), a + r * a_stride + i);
      for (int64_t j = 0; j < kCols; ++j) s[r][j] = hn::MulAdd(x, w[j], s[r][j]);
    }
  });
  for (int64_t r = 0; r < kRows; ++r) {
    for (int64_t j = 0; j < kCols; ++j) sums[r * kStripRows + j] = sum_of_lanes(s[r][j]);
  }
}

template <class T>
HWY_ATTR void transposed_strip_of(const Strip& strip) {
  HWY_ALIGN float sums[kFewRows * kStripRows];
  const int64_t rows = strip.c.rows, k = strip.a.cols;
  int64_t j = 0;
  const auto dots = [&](auto cols) HWY_ATTR {
    const T* b = strip.b.as<T>() + (strip.col + j) * strip.b.row_stride;
    for_each_group(rows, [&](auto group, int64_t row) HWY_ATTR {
      dot_block<decltype(group)::value, decltype(cols)::value>(strip.a.as<T>() + row * strip.a.row_stride,
                                                               strip.a.row_stride, b, strip.b.row_stride, k,
                                                               sums + row * kStripRows + j);
    });
    j += decltype(cols)::value;
  };
  while (j + kWide <= strip.cols) dots(Constant<kWide>());
  while (j < strip.cols) dots(Constant<1>());
  for (int64_t r = 0; r < rows; ++r) store_row(strip, r, sums + r * kStripRows);
}

/// What the parts of a strip add up to, the first one's part being the first.
void few_rows_total(const Strip& strip, int64_t num_parts) {
  HWY_ALIGN float sums[kStripCols];
  for (int64_t r = 0; r < strip.c.rows; ++r) {
    const float* part = strip.part + r * strip.c.cols + strip.col;
    std::copy_n(part, strip.cols, sums);
    for (int64_t i = 1; i < num_parts; ++i) {
      part += strip.c.rows * strip.c.cols;
      for_each_vector(strip.cols, [&](auto access, int64_t j) HWY_ATTR {
        const FloatTag d;
        access.store(hn::Add(access.load(d, sums + j), access.load(d, part + j)), d, sums + j);
      });
    }
    store_row(strip, r, sums);
  }
}

void few_rows_by_bf16(const Strip& strip, bool transposed, bool amx) {
  alignas(64) float sums[kFewRows * kFewRowsCols];
  (amx ? few_rows_sums_by_amx : few_rows_sums_by_pairs)(sums, strip.a, strip.b, transposed, strip.col,
                                                        strip.cols);
  for (int64_t r = 0; r < strip.c.rows; ++r) store_row(strip, r, sums + r * kFewRowsCols);
}

void few_rows_strip(const Strip& strip) {
  with_element(strip.b.dtype, [&](auto e) HWY_ATTR { strip_of<decltype(e)>(strip); });
}

void few_rows_transposed_strip(const Strip& strip) {
  with_element(strip.b.dtype, [&](auto e) HWY_ATTR { transposed_strip_of<decltype(e)>(strip); });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {

HWY_EXPORT(few_rows_by_bf16);
HWY_EXPORT(few_rows_strip);
HWY_EXPORT(few_rows_total);
HWY_EXPORT(few_rows_transposed_strip);

namespace {

/// How b (k, n) is shared among tasks: a function of its size, so that bits depend on neither rows nor
/// threads.
struct Division {
  int64_t cols;          ///< of a strip
  int64_t depth, parts;  ///< rows of b in a part
};

constexpr int64_t kTasks = 8;         // where there are fewer strips, parts make up for them
constexpr int64_t kLeastDepth = 256;  // of a part

/// Elements of a row in a page of memory.
constexpr int64_t page_of(DType dtype) {
  return 4096 / static_cast<int64_t>(size_of(dtype));
}

Division division_of(int64_t n, int64_t k, DType dtype) {
  const int64_t cols = page_of(dtype), strips = (n + cols - 1) / cols;
  const int64_t parts = std::clamp<int64_t>(kTasks / strips, 1, std::max<int64_t>(1, k / kLeastDepth));
  const int64_t depth = std::max(kDepth, ((k + parts - 1) / parts + kDepth - 1) / kDepth * kDepth);
  return {cols, depth, std::max<int64_t>(1, (k + depth - 1) / depth)};
}

/// Columns of a strip, `most` where that leaves every thread two of the strips' parts. No bit depends on it.
int64_t strip_width(Stream& stream, int64_t n, int64_t most, int64_t parts) {
  const int64_t strips = (2 * stream.threads().num_threads() + parts - 1) / parts;
  return std::clamp<int64_t>((n / strips + 63) / 64 * 64, 64, most);
}

/// work(strip) for all columns of c, `width` at a time.
template <class Work>
void for_each_strip(Stream& stream, const Strip& all, int64_t width, const Work& work) {
  const int64_t n = all.c.cols;
  stream.parallel_for((n + width - 1) / width, [&](int64_t i) {
    Strip strip = all;
    strip.col = i * width;
    strip.cols = std::min(width, n - strip.col);
    work(strip);
  });
}

void multiply_in_parts(Stream& stream, Strip all) {
  const int64_t n = all.c.cols, k = all.a.cols;
  const Division division = division_of(n, k, all.b.dtype);
  const int64_t depth = division.depth, parts = division.parts;
  // Sums of more rows would leave the L1 cache.
  const int64_t width = strip_width(stream, n, all.c.rows > kGroup ? 256 : division.cols, parts);
  const int64_t num_strips = (n + width - 1) / width;
  const ArenaScope scope(stream.scratch());
  if (parts > 1) all.part = stream.scratch().allocate<float>(parts * all.c.rows, n).as<float>();
  stream.parallel_for(num_strips * parts, [&](int64_t i) {
    Strip strip = all;
    strip.col = i / parts * width;
    strip.cols = std::min(width, n - strip.col);
    strip.first = i % parts * depth;
    strip.end = std::min(k, strip.first + depth);
    if (parts > 1) strip.part += i % parts * all.c.rows * n;
    HWY_DYNAMIC_DISPATCH(few_rows_strip)(strip);
  });
  if (parts == 1) return;
  for_each_strip(stream, all, width, [&](const Strip& strip) {
    HWY_DYNAMIC_DISPATCH(few_rows_total)(strip, parts);
  });
}

}  // namespace

void matmul_few_rows(Stream& stream, const Tensor& c, const Tensor& a, const Tensor& b, Transpose transpose_b,
                     float alpha) {
  const bool transposed = transpose_b == Transpose::yes;
  const int64_t n = c.cols, k = a.cols;
  RED_CHECK(c.rows == a.rows && (transposed ? b.rows : b.cols) == n && (transposed ? b.cols : b.rows) == k,
            "c ({}, {}), a ({}, {}), b ({}, {}){}", c.rows, n, a.rows, k, b.rows, b.cols,
            transposed ? "^T" : "");
  RED_CHECK(c.rows <= kFewRows, "{} rows, at most {} are few", c.rows, kFewRows);
  RED_CHECK(is_element(c.dtype) && is_element(a.dtype) && a.dtype == b.dtype, "{} = {} {}", name_of(c.dtype),
            name_of(a.dtype), name_of(b.dtype));
  if (c.rows == 0 || n == 0) return;
  const Strip all{c, a, b, alpha, 0, n};
  if (b.dtype == DType::bf16 && stream.gemm().has_bf16_arithmetic() && k > 0 &&
      (transposed || c.rows > kFewRowsInFp32)) {
    for_each_strip(stream, all, strip_width(stream, n, kFewRowsCols, 1), [&](const Strip& strip) {
      HWY_DYNAMIC_DISPATCH(few_rows_by_bf16)(strip, transposed, stream.gemm().amx);
    });
  } else if (transposed) {
    for_each_strip(stream, all, kStripRows, [](const Strip& strip) {
      HWY_DYNAMIC_DISPATCH(few_rows_transposed_strip)(strip);
    });
  } else {
    multiply_in_parts(stream, all);
  }
}

std::size_t few_rows_scratch_bytes(DType dtype) {
  return Arena::rounded(static_cast<std::size_t>(kTasks * kFewRows * page_of(dtype)) * sizeof(float));
}

bool few_rows_pay(int64_t rows, DType) {
  return rows <= kFewRows;
}

}  // namespace red::ops
#endif  // HWY_ONCE

// Private to the CUDA ops: tensors seen from a kernel. Rows are read and written 16 bytes at a time where
// every tensor of a call allows it, and element by element otherwise and at the end of a row; arithmetic is
// fp32.
#pragma once

#include <cuda_bf16.h>

#include <type_traits>

#include "ops/cuda_launch.cuh"
#include "ops/rows.hpp"

namespace red::ops {

/// Rows of a row-major matrix of T.
template <class T>
struct RowsOf {
  RowsOf() = default;
  explicit RowsOf(const Tensor& t) : data(reinterpret_cast<T*>(t.data)), stride(t.row_stride) {}
  __device__ T* at(int64_t row, int64_t col = 0) const { return data + row * stride + col; }
  __device__ T& operator()(int64_t row, int64_t col = 0) const { return *at(row, col); }

  T* data = nullptr;
  int64_t stride = 0;
};

template <class T>
__device__ inline bool is_finite(T value) {
  return value - value == T(0);
}

template <class T>
__device__ inline T rounded_to(float value) {
  if constexpr (std::is_same_v<T, bf16>) {
    bf16 result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    return result;
  } else {
    return static_cast<T>(value);
  }
}

/// A number of elements that is known at compile time.
template <int kNumber>
using Lanes = std::integral_constant<int, kNumber>;

/// Elements in 16 bytes.
template <class T>
inline constexpr int kLanesOf = static_cast<int>(16 / sizeof(T));

namespace detail {

template <int kBytes>
struct WordOf {
  using Type =
      std::conditional_t<kBytes % 16 == 0, uint4, std::conditional_t<kBytes % 8 == 0, uint2, uint32_t>>;
};

/// kBytes from one place to another, both aligned to kBytes or to 16.
template <int kBytes>
__device__ inline void copy_bytes(void* to, const void* from) {
  using Word = typename WordOf<kBytes>::Type;
  static_assert(kBytes % sizeof(Word) == 0);
#pragma unroll
  for (int i = 0; i < kBytes / static_cast<int>(sizeof(Word)); ++i)
    static_cast<Word*>(to)[i] = static_cast<const Word*>(from)[i];
}

}  // namespace detail

/// to = the kN elements from `from` on, which is aligned for them.
template <int kN, class T>
__device__ inline void load(float (&to)[kN], const T* from) {
  if constexpr (kN == 1) {
    to[0] = *from;
  } else {
    alignas(16) T raw[kN];
    detail::copy_bytes<kN * sizeof(T)>(raw, from);
#pragma unroll
    for (int i = 0; i < kN; ++i) to[i] = raw[i];
  }
}

/// The same of at most `count` elements; 0 behind them.
template <int kN, class T>
__device__ inline void load_some(float (&to)[kN], const T* from, int64_t count) {
  if (count >= kN) return load(to, from);
#pragma unroll
  for (int i = 0; i < kN; ++i) to[i] = i < count ? static_cast<float>(from[i]) : 0.0F;
}

template <int kN, class T>
__device__ inline void store(T* to, const float (&from)[kN]) {
  if constexpr (kN == 1) {
    *to = rounded_to<T>(from[0]);
  } else {
    alignas(16) T raw[kN];
#pragma unroll
    for (int i = 0; i < kN; ++i) raw[i] = rounded_to<T>(from[i]);
    detail::copy_bytes<kN * sizeof(T)>(to, raw);
  }
}

/// The same of at most `count` elements.
template <int kN, class T>
__device__ inline void store_some(T* to, const float (&from)[kN], int64_t count) {
  if (count >= kN) return store(to, from);
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    if (i < count) to[i] = rounded_to<T>(from[i]);
  }
}

/// body(Lanes<n>(), col) with n = kN, and 1 at the end, such that every column is seen once by the threads
/// `first` of `num_threads`.
template <int kN, class Body>
__device__ inline void for_each_column(int64_t cols, int64_t first, int64_t num_threads, const Body& body) {
  const int64_t whole = cols / kN * kN;
  for (int64_t col = first * kN; col < whole; col += num_threads * kN) body(Lanes<kN>(), col);
  if constexpr (kN > 1) {
    for (int64_t col = whole + first; col < cols; col += num_threads) body(Lanes<1>(), col);
  }
}

/// The same by the threads of this block.
template <int kN, class Body>
__device__ inline void for_each_column(int64_t cols, const Body& body) {
  for_each_column<kN>(cols, threadIdx.x, blockDim.x, body);
}

/// body(Lanes<n>(), row, col) over a matrix by the threads of a grid (columns, rows), as grid_over() makes
/// it.
template <int kN, class Body>
__device__ inline void for_each_element(int64_t rows, int64_t cols, const Body& body) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t num_threads = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y)
    for_each_column<kN>(cols, first, num_threads, [&](auto lanes, int64_t col) { body(lanes, row, col); });
}

struct MatrixGrid {
  dim3 grid, block;
};

inline MatrixGrid grid_over(int64_t rows, int64_t cols, int lanes) {
  const int64_t vectors = pieces(cols, lanes);
  const unsigned threads = threads_for(vectors);
  const unsigned x = blocks_for(pieces(vectors, threads));
  return {dim3(x, blocks_for(rows, std::max<int64_t>(1, kMostBlocks / std::max(1U, x)))), dim3(threads)};
}

/// Whether all of them can be read and written in `lanes` elements, or 16 bytes at most, at a time.
template <class... Tensors>
bool in_vectors(int lanes, const Tensors&... tensors) {
  const auto fits = [&](const Tensor& t) {
    const auto size = static_cast<int64_t>(size_of(t.dtype));
    const int64_t bytes = std::min<int64_t>(16, lanes * size);
    return reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(bytes) == 0 &&
           (t.rows <= 1 || t.row_stride * size % bytes == 0);
  };
  return (fits(tensors) && ...);
}

/// body(T()) with the element type T of activations and matrices.
template <class Body>
void with_element(DType dtype, const Body& body) {
  RED_CHECK(is_element(dtype), "{} elements, fp32 or bf16 are possible", name_of(dtype));
  dtype == DType::bf16 ? body(bf16()) : body(float());
}

/// body(T(), Lanes<n>()) with n elements to take at a time besides: those of 16 bytes where `tensors` allow
/// it.
template <class Body, class... Tensors>
void with_lanes(DType dtype, const Body& body, const Tensors&... tensors) {
  with_element(dtype, [&](auto element) {
    constexpr int lanes = kLanesOf<decltype(element)>;
    if (in_vectors(lanes, tensors...)) return body(element, Lanes<lanes>());
    body(element, Lanes<1>());
  });
}

}  // namespace red::ops

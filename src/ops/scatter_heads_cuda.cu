// Keys or values of new tokens into a cache, on a GPU: one pass over (n, h k), bound by bytes.
#include "ops/cuda_rows.cuh"
#include "ops/scatter_heads.hpp"

namespace red::ops {
namespace {

/// A token with a row outside the cache is passed over: the host cannot be asked without waiting.
template <int kN, class T>
__global__ void scatter_heads_kernel(RowsOf<T> cache, RowsOf<const T> x, const int32_t* rows, int64_t tokens,
                                     int64_t num_heads, int64_t head_rows, int64_t k, int64_t cache_rows) {
  for_each_element<kN>(tokens * num_heads, k, [&](auto lanes, int64_t i, int64_t col) {
    const int64_t token = i / num_heads, head = i % num_heads;
    if (rows[token] < 0 || rows[token] + (num_heads - 1) * head_rows >= cache_rows) return;
    const int64_t row = rows[token] + head * head_rows;
    float v[decltype(lanes)::value];
    load(v, x.at(token, head * k + col));
    store(cache.at(row, col), v);
  });
}

}  // namespace

void scatter_heads(Stream& stream, const Tensor& cache, const Tensor& x, const int32_t* rows,
                   int64_t num_heads, int64_t head_rows) {
  RED_CHECK(num_heads > 0 && head_rows >= 0 && x.cols == num_heads * cache.cols,
            "({}, {}) into rows of {} by {} heads {} rows apart", x.rows, x.cols, cache.cols, num_heads,
            head_rows);
  check_same_dtype(cache, x);
  // The first row's last head must fit, or none does.
  RED_CHECK(x.rows == 0 || (num_heads - 1) * head_rows < cache.rows, "{} heads {} rows apart in {} rows",
            num_heads, head_rows, cache.rows);
  const int64_t k = cache.cols;
  const Tensor second_head = num_heads > 1 ? x.col_range(k, k) : x;
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto [grid, block] = grid_over(x.rows * num_heads, k, n);
    launch(stream, scatter_heads_kernel<n, T>, grid, block, RowsOf<T>(cache), RowsOf<const T>(x), rows,
           x.rows, num_heads, head_rows, k, cache.rows);
  };
  with_lanes(x.dtype, run, cache, x, second_head);
}

}  // namespace red::ops

// Head norm and rotary positions on a GPU, in place: 2 k elements a head forward, 3 k backward, and nothing
// else of size; bound by bytes. A group of lanes, a power of two, takes one head of one token: 8 lanes read
// the 128 bf16 of a head 16 bytes at a time, and a warp has 4 heads under way. Shapes: n tokens, h heads, k
// head width; x, dx, y (n, h k); inv_rms (n, h); cosine, sine (positions, k / 2).
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/blocks.hpp"
#include "ops/cuda_reduce.cuh"
#include "ops/cuda_rows.cuh"
#include "ops/head_norm_rope.hpp"

namespace red::ops {
namespace {

/// Where the angles are, or null for the norm alone.
struct Rotation {
  const float* cosine = nullptr;
  const float* sine = nullptr;
  int64_t num_positions = 0;
  const int32_t* positions = nullptr;  // (n)
};

template <class T>
struct HeadArgs {
  int64_t tokens, num_heads, head_dim;
  int group;  // lanes of one head
  RowsOf<T> x;
  RowsOf<float> inv_rms;
  Rotation rotation;
};

/// One head of one token, for the lanes of a group; those of heads that are not there take part in sums
/// alone.
struct Head {
  template <class T>
  __device__ Head(const HeadArgs<T>& args, int64_t index)
      : there(index < args.tokens * args.num_heads),
        token(there ? index / args.num_heads : 0),
        head(there ? index % args.num_heads : 0),
        lane(static_cast<int>(threadIdx.x) % args.group),
        group(args.group) {
    const Rotation& r = args.rotation;
    if (!there || r.positions == nullptr) return;
    const int64_t position = r.positions[token], half = args.head_dim / 2;
    if (position < 0 || position >= r.num_positions) {
      off_table = true;
    } else {
      cosine = r.cosine + position * half;
      sine = r.sine + position * half;
    }
  }

  bool there, off_table = false;
  int64_t token, head;
  int lane, group;
  const float *cosine = nullptr, *sine = nullptr;
};

/// body(i) for each kN elements of the first half, a multiple of kN. A lane has the same elements in every
/// pass, and those that belong to them in the second half: no lane writes what another reads.
template <int kN, class Body>
__device__ void for_each_pair(const Head& head, int64_t half, const Body& body) {
  for (int64_t i = head.lane * kN; i < half; i += head.group * kN) body(i);
}

/// to (2 kN) = the rotated pairs of from; `turn` is -1 for the way back.
template <int kN>
__device__ void rotate(float (&a)[kN], float (&b)[kN], const Head& head, int64_t i, float turn) {
  float c[kN], s[kN];
  load(c, head.cosine + i);
  load(s, head.sine + i);
#pragma unroll
  for (int j = 0; j < kN; ++j) {
    const float x = a[j], y = b[j], sine = turn * s[j];
    a[j] = x * c[j] - y * sine;
    b[j] = y * c[j] + x * sine;
  }
}

/// x (k) <- change(x) over both halves at once, rotated.
template <int kN, class T, class Change>
__device__ void change_head(T* x, const Head& head, int64_t half, float turn, const Change& change) {
  for_each_pair<kN>(head, half, [&](int64_t i) {
    float a[kN], b[kN];
    load(a, x + i);
    load(b, x + half + i);
    change(a, i);
    change(b, half + i);
    if (head.cosine != nullptr) rotate(a, b, head, i, turn);
    store(x + i, a);
    store(x + half + i, b);
  });
}

/// What makes a result no number where a position is in no table: the host cannot be asked without waiting.
__device__ float poison_of(const Head& head) {
  return head.off_table ? std::numeric_limits<float>::quiet_NaN() : 1.0F;
}

template <int kN, class T>
__global__ void __launch_bounds__(256) head_norm_kernel(HeadArgs<T> args, float epsilon) {
  const int64_t k = args.head_dim, heads_per_block = blockDim.x / args.group;
  const int64_t total = args.tokens * args.num_heads;
  for (int64_t first = blockIdx.x * heads_per_block; first < total; first += gridDim.x * heads_per_block) {
    const Head head(args, first + threadIdx.x / args.group);
    T* x = args.x.at(head.token, head.head * k);
    float squares = 0.0F;
    if (head.there) {
      for_each_pair<kN>(head, k / 2, [&](int64_t i) {
        float a[kN], b[kN];
        load(a, x + i);
        load(b, x + k / 2 + i);
#pragma unroll
        for (int j = 0; j < kN; ++j) squares += a[j] * a[j] + b[j] * b[j];
      });
    }
    const float mean = warp_sum(squares, args.group) / static_cast<float>(k);
    if (!head.there) continue;
    const float inv_rms = 1.0F / sqrtf(mean + epsilon) * poison_of(head);
    if (head.lane == 0) args.inv_rms(head.token, head.head) = inv_rms;
    change_head<kN>(x, head, k / 2, 1.0F, [&](float(&v)[kN], int64_t) {
#pragma unroll
      for (int j = 0; j < kN; ++j) v[j] *= inv_rms;
    });
  }
}

// With n = R^-1 y and dn = R^-1 dy, the gradient is inv_rms (dn - n mean(n dn)). R keeps lengths and angles,
// so mean(n dn) = mean(y dy), and what is turned back is dy - y mean(y dy).
template <int kN, class T>
__global__ void __launch_bounds__(256) head_norm_backward_kernel(HeadArgs<T> args, RowsOf<const T> y) {
  const int64_t k = args.head_dim, heads_per_block = blockDim.x / args.group;
  const int64_t total = args.tokens * args.num_heads;
  for (int64_t first = blockIdx.x * heads_per_block; first < total; first += gridDim.x * heads_per_block) {
    const Head head(args, first + threadIdx.x / args.group);
    T* dx = args.x.at(head.token, head.head * k);
    const T* normalised = y.at(head.token, head.head * k);
    float dot = 0.0F;
    if (head.there) {
      for_each_pair<kN>(head, k / 2, [&](int64_t i) {
        for (int64_t at = i; at < k; at += k / 2) {
          float d[kN], v[kN];
          load(d, dx + at);
          load(v, normalised + at);
#pragma unroll
          for (int j = 0; j < kN; ++j) dot += d[j] * v[j];
        }
      });
    }
    const float mean = warp_sum(dot, args.group) / static_cast<float>(k);
    if (!head.there) continue;
    const float inv_rms = args.inv_rms(head.token, head.head) * poison_of(head);
    change_head<kN>(dx, head, k / 2, -1.0F, [&](float(&d)[kN], int64_t i) {
      float v[kN];
      load(v, normalised + i);
#pragma unroll
      for (int j = 0; j < kN; ++j) d[j] = (d[j] - v[j] * mean) * inv_rms;
    });
  }
}

int64_t checked_head_dim(const Tensor& x, const Tensor& inv_rms, int64_t num_heads, const RopeTable* table) {
  RED_CHECK(num_heads > 0 && x.cols % num_heads == 0, "width {} heads {}", x.cols, num_heads);
  RED_CHECK(inv_rms.rows == x.rows && inv_rms.cols == num_heads && inv_rms.dtype == DType::fp32,
            "inv_rms ({}, {}) {} for {} tokens, {} heads", inv_rms.rows, inv_rms.cols, name_of(inv_rms.dtype),
            x.rows, num_heads);
  const int64_t k = x.cols / num_heads;
  RED_CHECK(table == nullptr || 2 * table->half() == k, "table for width {}, heads have {}",
            2 * table->half(), k);
  RED_CHECK(k % 2 == 0, "head width {}", k);
  return k;
}

/// body(T(), Lanes<n>(), HeadArgs<T>, grid); `others` must allow n lanes too.
template <class Body, class... Tensors>
void with_heads(const Tensor& x, const Tensor& inv_rms, int64_t num_heads, const RopeTable* table,
                const int32_t* positions, const Body& body, const Tensors&... others) {
  const int64_t k = checked_head_dim(x, inv_rms, num_heads, table);
  Rotation rotation;
  if (table != nullptr) rotation = {table->cos(), table->sin(), table->num_positions(), positions};
  const auto run = [&](auto element, auto lanes) {
    using T = decltype(element);
    constexpr int n = decltype(lanes)::value;
    const auto group = static_cast<int>(std::min<uint64_t>(
        kWarp, std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(1, pieces(k / 2, n))))));
    const HeadArgs<T> args{x.rows, num_heads, k, group, RowsOf<T>(x), RowsOf<float>(inv_rms), rotation};
    body(element, lanes, args, blocks_for(pieces(x.rows * num_heads, 256 / group), 8 * kMostBlocks));
  };
  // Halves of a head must begin where vectors may.
  const Tensor half = x.cols >= k / 2 ? x.col_range(k / 2, 0) : x;
  with_lanes(x.dtype, run, x, half, others...);
}

void forward(Stream& stream, const Tensor& x, const Tensor& inv_rms, int64_t num_heads, float epsilon,
             const RopeTable* table, const int32_t* positions) {
  const auto run = [&](auto element, auto lanes, auto args, unsigned blocks) {
    launch(stream, head_norm_kernel<decltype(lanes)::value, decltype(element)>, blocks, 256, args, epsilon);
  };
  with_heads(x, inv_rms, num_heads, table, positions, run);
}

void backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms, int64_t num_heads,
              const RopeTable* table, const int32_t* positions) {
  check_same_shape(y, dx);
  check_same_dtype(dx, y);
  const auto run = [&](auto element, auto lanes, auto args, unsigned blocks) {
    using T = decltype(element);
    launch(stream, head_norm_backward_kernel<decltype(lanes)::value, T>, blocks, 256, args,
           RowsOf<const T>(y));
  };
  with_heads(dx, inv_rms, num_heads, table, positions, run, y);
}

}  // namespace

RopeTable::RopeTable(int64_t num_positions, int64_t head_dim, double base, Memory memory)
    : num_positions_(num_positions),
      half_(head_dim / 2),
      buffer_(static_cast<std::size_t>(2 * num_positions * (head_dim / 2)) * sizeof(float), memory) {
  RED_CHECK(num_positions >= 0 && head_dim > 0 && head_dim % 2 == 0 && base > 0,
            "{} positions, head width {}, base {}", num_positions, head_dim, base);
  if (memory == Memory::counted) return;
  const int64_t size = num_positions * half_;
  std::vector<float> angles(static_cast<std::size_t>(2 * size));
  for (int64_t i = 0; i < half_; ++i) {
    const double frequency = std::pow(base, -static_cast<double>(i) / static_cast<double>(half_));
    for (int64_t position = 0; position < num_positions; ++position) {
      const double angle = static_cast<double>(position) * frequency;
      angles[position * half_ + i] = static_cast<float>(std::cos(angle));
      angles[size + position * half_ + i] = static_cast<float>(std::sin(angle));
    }
  }
  Stream once(1, 0);
  copy_to_device(once, buffer_.data(), angles.data(), angles.size() * sizeof(float));
  once.synchronize();
}

void head_norm(Stream& stream, const Tensor& x, const Tensor& inv_rms, int64_t num_heads, float epsilon) {
  forward(stream, x, inv_rms, num_heads, epsilon, nullptr, nullptr);
}

void head_norm_rope(Stream& stream, const Tensor& x, const Tensor& inv_rms, int64_t num_heads, float epsilon,
                    const RopeTable& table, const int32_t* positions) {
  forward(stream, x, inv_rms, num_heads, epsilon, &table, positions);
}

void head_norm_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                        int64_t num_heads) {
  backward(stream, dx, y, inv_rms, num_heads, nullptr, nullptr);
}

void head_norm_rope_backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms,
                             int64_t num_heads, const RopeTable& table, const int32_t* positions) {
  backward(stream, dx, y, inv_rms, num_heads, &table, positions);
}

}  // namespace red::ops

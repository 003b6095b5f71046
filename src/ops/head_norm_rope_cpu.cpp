// Head norm and rotary positions on the CPU, in place, one read and one write of memory each way.
// Shapes: n tokens, h heads, k head width; x, dx, y (n, h k); inv_rms (n, h); cosine, sine (k / 2).
#include <cmath>
#include <vector>

#include "ops/head_norm_rope.hpp"
#include "ops/row_blocks.hpp"
#include "ops/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/head_norm_rope_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/row_loops-inl.hpp"

#ifndef RED_OPS_HEAD_NORM_ROPE_CPU_ARGS
#define RED_OPS_HEAD_NORM_ROPE_CPU_ARGS
namespace red::ops {
namespace {

struct HeadNormArgs {
  DType dtype;  // of x and y
  int64_t num_heads, head_dim;
  Rows x;        // (n, h k): x, or dx in the backward pass
  Rows inv_rms;  // (n, h) fp32
  Rows y = {};   // (n, h k): of the backward pass
  float epsilon = 0;
};

/// The angles of one token, or none.
struct Angles {
  Angles(const RopeTable* table, const int32_t* positions, int64_t token) {
    if (table == nullptr) return;
    const int64_t position = positions[token];
    RED_CHECK(position >= 0 && position < table->num_positions(), "position {} of token {}, table holds {}",
              position, token, table->num_positions());
    cosine = table->cos() + position * table->half();
    sine = table->sin() + position * table->half();
  }
  const float* cosine = nullptr;
  const float* sine = nullptr;
};

}  // namespace
}  // namespace red::ops
#endif  // RED_OPS_HEAD_NORM_ROPE_CPU_ARGS

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

// x (k) <- x inv_rms, rotated where there are angles; inv_rms is returned.
template <class T>
HWY_ATTR float forward_head(T* x, int64_t head_dim, float epsilon, const float* cosine, const float* sine) {
  const FloatTag d;
  const float mean = sum_of_squares_row(x, head_dim) / static_cast<float>(head_dim);
  const float inv_rms = 1.0F / std::sqrt(mean + epsilon);
  if (cosine == nullptr) {
    for_each_vector(head_dim, [&](auto access, int64_t i) HWY_ATTR {
      access.store(hn::Mul(access.load(d, x + i), hn::Set(d, inv_rms)), d, x + i);
    });
    return inv_rms;
  }
  const int64_t half = head_dim / 2;
  for_each_vector(half, [&](auto access, int64_t i) HWY_ATTR {
    const auto scale = hn::Set(d, inv_rms);
    const auto c = access.load(d, cosine + i), s = access.load(d, sine + i);
    const auto a = hn::Mul(access.load(d, x + i), scale);
    const auto b = hn::Mul(access.load(d, x + half + i), scale);
    access.store(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, x + i);
    access.store(hn::MulAdd(a, s, hn::Mul(b, c)), d, x + half + i);
  });
  return inv_rms;
}

// With n = R^-1 y and dn = R^-1 dy, the gradient is inv_rms (dn - n mean(n dn)). R keeps lengths and angles,
// so mean(n dn) = mean(y dy), and what is turned back is dy - y mean(y dy).
template <class T>
HWY_ATTR void backward_head(T* dx, const T* y, float inv_rms, int64_t head_dim, const float* cosine,
                            const float* sine) {
  const FloatTag d;
  const float mean = dot_row(dx, y, head_dim) / static_cast<float>(head_dim);
  const auto gradient = [&](auto access, int64_t i) HWY_ATTR {
    const auto across = hn::NegMulAdd(access.load(d, y + i), hn::Set(d, mean), access.load(d, dx + i));
    return hn::Mul(across, hn::Set(d, inv_rms));
  };
  if (cosine == nullptr) {
    for_each_vector(head_dim,
                    [&](auto access, int64_t i) HWY_ATTR { access.store(gradient(access, i), d, dx + i); });
    return;
  }
  const int64_t half = head_dim / 2;
  for_each_vector(half, [&](auto access, int64_t i) HWY_ATTR {
    const auto c = access.load(d, cosine + i), s = access.load(d, sine + i);
    const auto a = gradient(access, i), b = gradient(access, half + i);
    access.store(hn::MulAdd(b, s, hn::Mul(a, c)), d, dx + i);
    access.store(hn::NegMulAdd(a, s, hn::Mul(b, c)), d, dx + half + i);
  });
}

void forward_token(const HeadNormArgs& args, int64_t token, const Angles& angles) {
  with_element(args.dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    float* inv_rms = args.inv_rms.at<float>(token);
    for (int64_t head = 0; head < args.num_heads; ++head) {
      inv_rms[head] = forward_head(args.x.at<T>(token, head * args.head_dim), args.head_dim, args.epsilon,
                                   angles.cosine, angles.sine);
    }
  });
}

void backward_token(const HeadNormArgs& args, int64_t token, const Angles& angles) {
  with_element(args.dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    const float* inv_rms = args.inv_rms.at<float>(token);
    for (int64_t head = 0; head < args.num_heads; ++head) {
      const int64_t col = head * args.head_dim;
      backward_head(args.x.at<T>(token, col), args.y.at<T>(token, col), inv_rms[head], args.head_dim,
                    angles.cosine, angles.sine);
    }
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(forward_token);
HWY_EXPORT(backward_token);

int64_t checked_head_dim(const Tensor& x, const Tensor& inv_rms, int64_t num_heads) {
  RED_CHECK(num_heads > 0 && x.cols % num_heads == 0, "width {} heads {}", x.cols, num_heads);
  RED_CHECK(inv_rms.rows == x.rows && inv_rms.cols == num_heads && inv_rms.dtype == DType::fp32,
            "inv_rms ({}, {}) {} for {} tokens, {} heads", inv_rms.rows, inv_rms.cols, name_of(inv_rms.dtype),
            x.rows, num_heads);
  return x.cols / num_heads;
}

void forward(Stream& stream, const Tensor& x, const Tensor& inv_rms, int64_t num_heads, float epsilon,
             const RopeTable* table, const int32_t* positions) {
  const int64_t head_dim = checked_head_dim(x, inv_rms, num_heads);
  RED_CHECK(table == nullptr || 2 * table->half() == head_dim, "table for width {}, heads have {}",
            2 * table->half(), head_dim);
  HeadNormArgs args{x.dtype, num_heads, head_dim, Rows(x), Rows(inv_rms)};
  args.epsilon = epsilon;
  for_row_blocks(stream, x.rows, x.cols, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const Angles angles(table, positions, token);
      HWY_DYNAMIC_DISPATCH(forward_token)(args, token, angles);
    }
  });
}

void backward(Stream& stream, const Tensor& dx, const Tensor& y, const Tensor& inv_rms, int64_t num_heads,
              const RopeTable* table, const int32_t* positions) {
  const int64_t head_dim = checked_head_dim(dx, inv_rms, num_heads);
  RED_CHECK(y.rows == dx.rows && y.cols == dx.cols, "y ({}, {}) dx ({}, {})", y.rows, y.cols, dx.rows,
            dx.cols);
  RED_CHECK(table == nullptr || 2 * table->half() == head_dim, "table for width {}, heads have {}",
            2 * table->half(), head_dim);
  check_same_dtype(dx, y);
  const HeadNormArgs args{dx.dtype, num_heads, head_dim, Rows(dx), Rows(inv_rms), Rows(y)};
  for_row_blocks(stream, dx.rows, 2 * dx.cols, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const Angles angles(table, positions, token);
      HWY_DYNAMIC_DISPATCH(backward_token)(args, token, angles);
    }
  });
}

}  // namespace

RopeTable::RopeTable(int64_t num_positions, int64_t head_dim, double base, Memory memory)
    : num_positions_(num_positions),
      half_(head_dim / 2),
      buffer_(static_cast<std::size_t>(2 * num_positions * (head_dim / 2)) * sizeof(float), memory) {
  RED_CHECK(num_positions >= 0 && head_dim > 0 && head_dim % 2 == 0 && base > 0,
            "{} positions, head width {}, base {}", num_positions, head_dim, base);
  if (memory == Memory::counted) return;
  std::vector<double> frequency(half_);
  for (int64_t i = 0; i < half_; ++i) {
    frequency[i] = std::pow(base, -static_cast<double>(i) / static_cast<double>(half_));
  }
  auto* cosine = reinterpret_cast<float*>(buffer_.data());
  float* sine = cosine + num_positions * half_;
  for (int64_t position = 0; position < num_positions; ++position) {
    for (int64_t i = 0; i < half_; ++i) {
      const double angle = static_cast<double>(position) * frequency[i];
      cosine[position * half_ + i] = static_cast<float>(std::cos(angle));
      sine[position * half_ + i] = static_cast<float>(std::sin(angle));
    }
  }
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
#endif  // HWY_ONCE

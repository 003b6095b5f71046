// Float64 matrices on the host, and tensors made from them: what tests of ops compute their references with.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "base/philox.hpp"
#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::test {

/// (rows, cols), row-major, float64.
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<double> values;

  Matrix() = default;
  Matrix(int64_t num_rows, int64_t num_cols, double value = 0.0)
      : rows(num_rows), cols(num_cols), values(static_cast<std::size_t>(num_rows * num_cols), value) {}
  Matrix(int64_t num_rows, int64_t num_cols, std::vector<double> elements)
      : rows(num_rows), cols(num_cols), values(std::move(elements)) {
    RED_CHECK(static_cast<int64_t>(values.size()) == rows * cols);
  }

  double& operator()(int64_t i, int64_t j) { return values[static_cast<std::size_t>(i * cols + j)]; }
  double operator()(int64_t i, int64_t j) const { return values[static_cast<std::size_t>(i * cols + j)]; }
};

/// N(0, scale^2) values that fp32 holds exactly, a pure function of the seed and the element.
inline Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed, double scale = 1.0) {
  Matrix m(rows, cols);
  for (std::size_t i = 0; i < m.values.size(); ++i) {
    const PhiloxBlock bits = philox(seed, i);
    m.values[i] = static_cast<float>(scale * normal_from(bits[0], bits[1]));
  }
  return m;
}

inline Matrix transposed(const Matrix& m) {
  Matrix t(m.cols, m.rows);
  for (int64_t i = 0; i < m.rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) t(j, i) = m(i, j);
  }
  return t;
}

/// A tensor of its own, with `padding` unused elements behind every row. They hold a NaN of ours, so that an
/// op that reads them shows it, and padding_untouched() tells whether one wrote to them.
template <class T>
class OwnedTensor {
 public:
  OwnedTensor(int64_t rows, int64_t cols, int64_t padding = 0) : OwnedTensor(Matrix(rows, cols), padding) {}

  explicit OwnedTensor(const Matrix& m, int64_t padding = 0)
      : stride_(m.cols + padding),
        host_(static_cast<std::size_t>(m.rows * stride_), sentinel()),
        buffer_(host_.size() * sizeof(T)) {
    for (int64_t i = 0; i < m.rows; ++i) {
      for (int64_t j = 0; j < m.cols; ++j) host_[index(i, j)] = static_cast<T>(m(i, j));
    }
    tensor_ = make_tensor(reinterpret_cast<T*>(buffer_.data()), m.rows, m.cols);
    tensor_.row_stride = stride_;
    copy_to_device(stream(), buffer_.data(), host_.data(), buffer_.num_bytes());
    stream().synchronize();  // ops run on streams of their own
  }

  const Tensor& tensor() const { return tensor_; }
  operator const Tensor&() const { return tensor_; }  // NOLINT(google-explicit-constructor): as ops take it
  T* data() const { return tensor_.as<T>(); }

  Matrix read() const {
    std::vector<T> host = elements();
    Matrix m(tensor_.rows, tensor_.cols);
    for (int64_t i = 0; i < m.rows; ++i) {
      for (int64_t j = 0; j < m.cols; ++j) m(i, j) = static_cast<double>(host[index(i, j)]);
    }
    return m;
  }
  double value() const { return read()(0, 0); }

  /// All stored elements, padding included, to compare bit by bit.
  std::vector<T> elements() const {
    std::vector<T> host(host_.size());
    synchronize_device();  // whichever stream writes it
    copy_to_host(stream(), host.data(), buffer_.data(), buffer_.num_bytes());
    stream().synchronize();
    return host;
  }

  bool padding_untouched() const {
    const std::vector<T> host = elements();
    for (int64_t i = 0; i < tensor_.rows; ++i) {
      for (int64_t j = tensor_.cols; j < stride_; ++j) {
        // Bits, not values: NOLINTNEXTLINE(bugprone-suspicious-memory-comparison)
        if (std::memcmp(&host[index(i, j)], &host_[index(i, j)], sizeof(T)) != 0) return false;
      }
    }
    return true;
  }

 private:
  static T sentinel() {
    if constexpr (std::is_same_v<T, bf16>) return bf16(std::numeric_limits<float>::quiet_NaN());
    return std::numeric_limits<T>::has_quiet_NaN ? std::numeric_limits<T>::quiet_NaN()
                                                 : std::numeric_limits<T>::max();
  }
  static Stream& stream() {
    static Stream copies(1, 0);
    return copies;
  }
  std::size_t index(int64_t i, int64_t j) const { return static_cast<std::size_t>(i * stride_ + j); }

  int64_t stride_;
  std::vector<T> host_;  ///< as it was made
  Buffer buffer_;
  Tensor tensor_;
};

using FloatTensor = OwnedTensor<float>;
using DoubleTensor = OwnedTensor<double>;
using Bf16Tensor = OwnedTensor<bf16>;

/// What is left of the values when they are stored as bf16.
inline Matrix as_bf16(Matrix m) {
  for (double& x : m.values) x = bf16(static_cast<float>(x));
  return m;
}

}  // namespace red::test

// What a test must know of the backend that it is linked against, to run on every one from the same source.
#pragma once

#include <vector>

#include "device/stream.hpp"

namespace red::test {

/// Whether ops run on the calling thread and see device memory as it is. On a GPU they cannot refuse what
/// lies in there without waiting for it: bad contents make results that are no numbers, or are passed over.
inline bool on_cpu() {
  static const bool answer = Stream(1, 0).handle() == nullptr;
  return answer;
}

/// The elements of a tensor in device memory, row after row, when all streams have done their work.
template <class T>
std::vector<T> elements_of(const Tensor& x) {
  std::vector<T> values(static_cast<std::size_t>(x.size()));
  Stream stream(1, 0);
  synchronize_device();
  const int64_t block = x.contiguous() ? x.rows : 1;
  for (int64_t row = 0; row < x.rows; row += block) {
    const Tensor part = x.row_range(row, block);
    copy_to_host(stream, values.data() + row * x.cols, part.as<T>(), part.size() * sizeof(T));
  }
  stream.synchronize();
  return values;
}

/// The other way; there for every stream when it returns.
template <class T>
void set_elements(const Tensor& x, const std::vector<T>& values) {
  RED_CHECK(static_cast<int64_t>(values.size()) == x.size(), "{} values for {}", values.size(), x.size());
  Stream stream(1, 0);
  synchronize_device();
  const int64_t block = x.contiguous() ? x.rows : 1;
  for (int64_t row = 0; row < x.rows; row += block) {
    const Tensor part = x.row_range(row, block);
    copy_to_device(stream, part.as<T>(), values.data() + row * x.cols, part.size() * sizeof(T));
  }
  stream.synchronize();
}

/// Values in device memory, of any type that is copied byte by byte.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values)
      : size_(values.size()), buffer_(values.size() * sizeof(T)) {
    Stream stream(1, 0);
    copy_to_device(stream, buffer_.data(), values.data(), buffer_.num_bytes());
    stream.synchronize();
  }

  /// Null where there are none.
  T* data() const { return reinterpret_cast<T*>(buffer_.data()); }
  Tensor tensor(int64_t rows, int64_t cols) const { return make_tensor(data(), rows, cols); }
  std::vector<T> read() const { return read_from(data(), size_); }

  /// Of device memory that somebody else owns.
  static std::vector<T> read_from(const T* data, std::size_t size) {
    std::vector<T> values(size);
    Stream stream(1, 0);
    synchronize_device();
    copy_to_host(stream, values.data(), data, size * sizeof(T));
    stream.synchronize();
    return values;
  }

 private:
  std::size_t size_;
  Buffer buffer_;
};

}  // namespace red::test

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

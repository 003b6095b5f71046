// Private to the CUDA backend: tensors in memory that is taken and given back in the order of a stream, for
// what an op wants in the middle of a step: there no other memory may be freed (cuda_stream.hpp).
#pragma once

#include "base/error.hpp"
#include "device/buffer.hpp"
#include "device/cuda_stream.hpp"
#include "device/stream.hpp"

namespace red::detail {

/// As an Arena of so many bytes. What `stream` is given during its life can use its tensors.
class StreamArena {
 public:
  /// Throws IoError without memory for it.
  StreamArena(Stream& stream, const char* name, std::size_t num_bytes)
      : name_(name), memory_(stream.handle(), num_bytes), num_bytes_(num_bytes) {
    if (memory_.data() == nullptr)
      throw IoError(
          "cannot allocate {:.1f} MiB of GPU memory for {}; use a smaller micro-batch, or more ranks",
          static_cast<double>(num_bytes) / (1 << 20), name);
  }

  /// (rows, cols), contiguous, contents undefined.
  Tensor allocate(int64_t rows, int64_t cols, DType dtype = DType::fp32) {
    return {take(static_cast<std::size_t>(rows * cols) * size_of(dtype)), rows, cols, cols, dtype};
  }
  template <class T>
  Tensor allocate(int64_t rows, int64_t cols) {
    return make_tensor(reinterpret_cast<T*>(take(static_cast<std::size_t>(rows * cols) * sizeof(T))), rows,
                       cols);
  }

 private:
  std::byte* take(std::size_t num_bytes) {
    const std::size_t begin = used_;
    used_ += Arena::rounded(num_bytes);
    RED_CHECK(used_ <= num_bytes_, "{} is full: {} bytes asked, {} of {} used", name_, num_bytes, begin,
              num_bytes_);
    return static_cast<std::byte*>(memory_.data()) + begin;
  }

  const char* name_;
  StreamMemory memory_;
  std::size_t num_bytes_, used_ = 0;
};

}  // namespace red::detail

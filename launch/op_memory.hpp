// Memory that ops are timed on, and what is in it: numbers of both signs that differ in all their bits. On
// equal ones a GPU draws less power, and at its limit runs faster than in a step: an A100's products by 15 %,
// zeros beside normal deviates (thonking.ai/p/strangely-matrix-multiplications).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/stream.hpp"
#include "device/tensor.hpp"

namespace red::launch {

enum class Numbers : bool {
  both_signs,  ///< spread evenly over (-0.2, 0.2)
  positive     ///< over [0.05, 0.25): means of squares
};

/// Ops are built twice: without a stream, to count it, and with one.
class OpMemory {
 public:
  /// Elements after which they begin again: few for the host to make, and no multiple of a row's length.
  static constexpr int64_t kPeriod = 8 * 8191;

  OpMemory() : arena_(Arena::counting()) {}
  OpMemory(Stream& stream, std::size_t num_bytes) : stream_(&stream), arena_("bench ops", num_bytes) {}

  /// (rows, cols) of such numbers, others in each tensor; fp32 or bf16.
  Tensor tensor(int64_t rows, int64_t cols, DType dtype, Numbers which = Numbers::both_signs);
  /// (rows, cols) of this value; fp32, bf16 or fp64.
  Tensor constant(int64_t rows, int64_t cols, DType dtype, float value);
  /// Device memory with these numbers.
  template <class T>
  T* numbers(const std::vector<T>& values) {
    const std::size_t num_bytes = values.size() * sizeof(T);
    std::byte* const at = arena_.allocate<uint8_t>(1, static_cast<int64_t>(num_bytes)).data;
    if (stream_ != nullptr) copy_to_device(*stream_, at, values.data(), num_bytes);
    return reinterpret_cast<T*>(at);
  }
  std::size_t peak() const { return arena_.peak(); }

 private:
  Stream* stream_ = nullptr;
  Arena arena_;
  uint64_t num_tensors_ = 0;
};

}  // namespace red::launch

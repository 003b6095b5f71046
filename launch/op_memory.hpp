// Memory that ops are timed on, full of numbers that differ (ops/spread_numbers.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "device/stream.hpp"
#include "device/tensor.hpp"
#include "ops/spread_numbers.hpp"

namespace red::launch {

/// Ops are built twice: without a stream, to count it, and with one.
class OpMemory {
 public:
  OpMemory() : arena_(Arena::counting()) {}
  OpMemory(Stream& stream, std::size_t num_bytes) : stream_(&stream), arena_("bench ops", num_bytes) {}

  /// (rows, cols) of such numbers, others in each tensor; fp32 or bf16.
  Tensor tensor(int64_t rows, int64_t cols, DType dtype, ops::Numbers which = ops::Numbers::both_signs);
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

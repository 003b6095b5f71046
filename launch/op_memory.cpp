#include "launch/op_memory.hpp"

#include "ops/elementwise.hpp"
#include "ops/rows.hpp"

namespace red::launch {

Tensor OpMemory::tensor(int64_t rows, int64_t cols, DType dtype, ops::Numbers which) {
  RED_CHECK(ops::is_element(dtype), "numbers in {}", name_of(dtype));
  const Tensor t = arena_.allocate(rows, cols, dtype);
  if (stream_ != nullptr) ops::spread_numbers(*stream_, t, which, num_tensors_);
  ++num_tensors_;
  return t;
}

Tensor OpMemory::constant(int64_t rows, int64_t cols, DType dtype, float value) {
  const Tensor t = arena_.allocate(rows, cols, dtype);
  if (stream_ != nullptr) ops::fill(*stream_, t, value);
  return t;
}

}  // namespace red::launch

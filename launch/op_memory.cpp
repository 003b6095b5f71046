#include "launch/op_memory.hpp"

#include <algorithm>

#include "base/bf16.hpp"
#include "base/philox.hpp"
#include "ops/elementwise.hpp"

namespace red::launch {
namespace {

template <class T>
std::vector<T> made(int64_t count, Numbers which, uint64_t key) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const float unit = uniform_float(philox(key, i / 4)[i % 4]);
    values[i] = T(which == Numbers::positive ? 0.05F + 0.2F * unit : 0.4F * (unit - 0.5F));
  }
  return values;
}

template <class T>
void put(Stream& stream, const Tensor& x, Numbers which, uint64_t key) {
  const std::vector<T> values = made<T>(x.size(), which, key);
  copy_to_device(stream, x.data, values.data(), values.size() * sizeof(T));
}

/// The host makes a period of them; the device repeats what is there, twice as much each time.
void spread(Stream& stream, const Tensor& x, Numbers which, uint64_t key) {
  const Tensor all{x.data, 1, x.size(), x.size(), x.dtype};
  int64_t done = std::min(x.size(), OpMemory::kPeriod);
  const Tensor first = all.col_range(0, done);
  x.dtype == DType::bf16 ? put<bf16>(stream, first, which, key) : put<float>(stream, first, which, key);
  while (done < x.size()) {
    const int64_t count = std::min(done, x.size() - done);
    ops::copy(stream, all.col_range(done, count), all.col_range(0, count));
    done += count;
  }
}

}  // namespace

Tensor OpMemory::tensor(int64_t rows, int64_t cols, DType dtype, Numbers which) {
  RED_CHECK(dtype == DType::fp32 || dtype == DType::bf16, "numbers in {}", name_of(dtype));
  const Tensor t = arena_.allocate(rows, cols, dtype);
  if (stream_ != nullptr) spread(*stream_, t, which, num_tensors_);
  ++num_tensors_;
  return t;
}

Tensor OpMemory::constant(int64_t rows, int64_t cols, DType dtype, float value) {
  const Tensor t = arena_.allocate(rows, cols, dtype);
  if (stream_ != nullptr) ops::fill(*stream_, t, value);
  return t;
}

}  // namespace red::launch

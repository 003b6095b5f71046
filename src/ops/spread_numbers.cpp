#include "ops/spread_numbers.hpp"

#include <algorithm>
#include <vector>

#include "base/bf16.hpp"
#include "base/philox.hpp"
#include "ops/elementwise.hpp"
#include "ops/rows.hpp"

namespace red::ops {
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

}  // namespace

void spread_numbers(Stream& stream, const Tensor& x, Numbers which, uint64_t key) {
  RED_CHECK(x.contiguous() && is_element(x.dtype), "numbers in {}", name_of(x.dtype));
  const Tensor all{x.data, 1, x.size(), x.size(), x.dtype};
  int64_t done = std::min(x.size(), kSpreadPeriod);
  const Tensor first = all.col_range(0, done);
  x.dtype == DType::bf16 ? put<bf16>(stream, first, which, key) : put<float>(stream, first, which, key);
  while (done < x.size()) {
    const int64_t count = std::min(done, x.size() - done);
    copy(stream, all.col_range(done, count), all.col_range(0, count));
    done += count;
  }
}

}  // namespace red::ops

// The elements of a tensor in row-major order, a bounded number at a time: for whoever looks at a whole
// checkpoint.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "checkpoint/checkpoint.hpp"

namespace red::checkpoint {

class TensorBlocks {
 public:
  /// The reader must outlive it.
  TensorBlocks(const Reader& reader, const LogicalTensor& tensor);

  /// The next elements, at most 8 MiB of them; empty at the end. Valid until the next call. Blocks of tensors
  /// with one shape and dtype are equally long. Throws what Reader::read throws.
  std::span<const std::byte> next();

 private:
  const Reader& reader_;
  const LogicalTensor tensor_;
  int64_t rows_ = 0, cols_ = 0;  ///< of a block
  int64_t row_ = 0, col_ = 0;    ///< where the next one begins
  std::vector<std::byte> block_;
};

/// use(double) for each element of a block.
template <class Use>
void for_each_value(DType dtype, std::span<const std::byte> block, const Use& use) {
  const auto all = [&]<class T>(T) {
    const auto* values = reinterpret_cast<const T*>(block.data());
    for (std::size_t i = 0; i < block.size() / sizeof(T); ++i) use(static_cast<double>(values[i]));
  };
  if (dtype == DType::fp32) return all(float());
  if (dtype == DType::fp64) return all(double());
  if (dtype == DType::int32) return all(int32_t());
  if (dtype == DType::uint8) return all(uint8_t());
  throw LogicError("no checkpoint holds {}", name_of(dtype));
}

}  // namespace red::checkpoint

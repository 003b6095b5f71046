#include "ops/attention_library_limits.hpp"

#include <fmt/format.h>

#include <cstdint>

namespace red::ops {

std::string not_taken_by_library(std::span<const Tensor* const> matrices, const AttentionLayout& layout,
                                 const AttentionMask& mask) {
  const Tensor& q = *matrices.front();
  const int64_t k = layout.num_heads == 0 ? 0 : q.cols / layout.num_heads;
  if (q.dtype != DType::bf16) return fmt::format("it is given bf16 alone, not {}", name_of(q.dtype));
  if (k == 0 || k % 8 != 0 || k > 128)
    return fmt::format("heads have {} columns, not a multiple of 8 up to 128", k);
  if (layout.k_head_rows != 0) return "keys and values are a cache's";
  if (mask.prefix != nullptr || mask.q_documents != nullptr) return "prefixes or documents are masked";
  if (layout.shortest <= 0) return "a sequence is empty, or the host does not know its length";
  for (const Tensor* m : matrices) {
    if (m == nullptr) continue;
    const bool aligned = reinterpret_cast<uintptr_t>(m->data) % 16 == 0 && m->row_stride % 8 == 0;
    if (!aligned) return "rows of a matrix are not aligned to 16 bytes";
    if (m->rows * m->row_stride > INT32_MAX) return "a matrix has more than 2^31 - 1 elements";
  }
  return "";
}

}  // namespace red::ops

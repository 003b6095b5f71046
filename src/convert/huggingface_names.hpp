// How a parameter is called and lies in an export: its own name; dense matrices, which are (in, out) here,
// are (out, in) there, as torch.nn.Linear has them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "convert/safetensors.hpp"
#include "model/parameter.hpp"

namespace red::convert {

/// The SentencePiece file that an export carries, so that it can come back.
inline constexpr const char* kTokenizerModelName = "sentencepiece.model";

inline bool is_transposed(const model::ParameterSpec& spec) {
  return !spec.is_gain() && spec.name != "embedding.weight";
}

/// Name, dtype and shape.
inline SafeTensor huggingface_tensor(const model::ParameterSpec& spec, DType dtype) {
  SafeTensor tensor{
      .name = spec.name, .dtype = dtype, .rows = spec.rows, .cols = spec.is_gain() ? 0 : spec.cols};
  if (is_transposed(spec)) std::swap(tensor.rows, tensor.cols);
  return tensor;
}

/// to (cols, rows) = from (rows, cols) transposed, in tiles that stay in the L1 cache.
inline void transpose(std::span<const float> from, int64_t rows, int64_t cols, std::span<float> to) {
  constexpr int64_t tile = 32;
  for (int64_t i = 0; i < rows; i += tile) {
    for (int64_t j = 0; j < cols; j += tile) {
      for (int64_t r = i; r < std::min(i + tile, rows); ++r) {
        for (int64_t c = j; c < std::min(j + tile, cols); ++c)
          to[static_cast<std::size_t>(c * rows + r)] = from[static_cast<std::size_t>(r * cols + c)];
      }
    }
  }
}

}  // namespace red::convert

// A small set of logical tensors whose every element is a function of its name and place, cut into tiles in
// several ways: what one cut writes, another must read.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/crc32c.hpp"
#include "base/philox.hpp"
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint::test {

inline std::vector<LogicalTensor> model_tensors() {
  return {{"optimizer/t", 1, 0, DType::int32},
          {"optimizer/v/decoder.layers.0.ffn.up.weight", 33, 48, DType::fp32},
          {"optimizer/v/embedding.weight", 67, 32, DType::fp32},
          {"optimizer/v_row/embedding.weight", 67, 0, DType::fp64},
          {"parameters/decoder.final_norm.gain", 19, 0, DType::fp32},
          {"parameters/decoder.layers.0.ffn.up.weight", 33, 48, DType::fp32},
          {"parameters/embedding.weight", 67, 32, DType::fp32},
          {"parameters/flags", 13, 5, DType::uint8}};
}

/// The bytes of one element; `version` tells saves apart.
template <class T>
T element(const LogicalTensor& tensor, int64_t row, int64_t col, int version) {
  const uint64_t cols = tensor.cols == 0 ? 1 : static_cast<uint64_t>(tensor.cols);
  const PhiloxBlock bits = philox(hash_name(tensor.path, static_cast<uint64_t>(version)),
                                  static_cast<uint64_t>(row) * cols + static_cast<uint64_t>(col));
  if constexpr (std::is_integral_v<T>) return static_cast<T>(bits[0]);
  return static_cast<T>(normal_from(bits[0], bits[1]));
}

inline std::vector<std::byte> element_bytes(const LogicalTensor& tensor, int64_t row, int64_t col,
                                            int version) {
  std::vector<std::byte> bytes(size_of(tensor.dtype));
  const auto put = [&](auto value) { std::memcpy(bytes.data(), &value, sizeof(value)); };
  switch (tensor.dtype) {
    case DType::fp32:
      put(element<float>(tensor, row, col, version));
      break;
    case DType::fp64:
      put(element<double>(tensor, row, col, version));
      break;
    case DType::int32:
      put(element<int32_t>(tensor, row, col, version));
      break;
    case DType::uint8:
      put(element<uint8_t>(tensor, row, col, version));
      break;
    case DType::bf16:  // no checkpoint holds it
      break;
  }
  return bytes;
}

/// The checksum of a tile of what `version` holds.
inline uint32_t tile_crc32c(const LogicalTensor& tensor, const Rectangle& region, int version) {
  uint32_t crc = 0;
  for (int64_t row = region.row_begin; row < region.row_end(); ++row) {
    for (int64_t col = region.col_begin; col < region.col_end(); ++col) {
      const std::vector<std::byte> bytes = element_bytes(tensor, row, col, version);
      crc = extend_crc32c(crc, bytes.data(), bytes.size());
    }
  }
  return crc;
}

/// Shards with memory of their own; rows lie `padding` elements further apart than they are long.
class OwnedShards {
 public:
  explicit OwnedShards(int64_t padding) : padding_(padding) {}

  void add(const LogicalTensor& tensor, const Rectangle& region) {
    const int64_t stride = region.num_cols + padding_;
    const auto num_bytes = static_cast<std::size_t>(stride * region.num_rows + 1) * size_of(tensor.dtype);
    memory_.emplace_back(num_bytes, kUntouched);
    shards_.push_back({tensor, region.row_begin, region.num_rows, region.col_begin, region.num_cols,
                       memory_.back().data(), stride});
  }
  const std::vector<Shard>& shards() const { return shards_; }

  void fill(int version) {
    for_every_element([&](const LogicalTensor& tensor, int64_t row, int64_t col, std::byte* place) {
      const std::vector<std::byte> bytes = element_bytes(tensor, row, col, version);
      std::memcpy(place, bytes.data(), bytes.size());
    });
  }
  /// Elements that differ from what `version` holds, and bytes between the rows that were overwritten.
  int64_t count_wrong(int version) {
    int64_t wrong = 0;
    for_every_element([&](const LogicalTensor& tensor, int64_t row, int64_t col, std::byte* place) {
      const std::vector<std::byte> bytes = element_bytes(tensor, row, col, version);
      wrong += std::memcmp(place, bytes.data(), bytes.size()) != 0;
    });
    for (std::size_t i = 0; i < shards_.size(); ++i) {
      const Shard& shard = shards_[i];
      const auto element = static_cast<int64_t>(size_of(shard.tensor.dtype));
      for (int64_t row = 0; row < shard.num_rows; ++row) {
        for (int64_t b = shard.num_cols * element; b < shard.row_stride * element; ++b)
          wrong += memory_[i][static_cast<std::size_t>(row * shard.row_stride * element + b)] != kUntouched;
      }
    }
    return wrong;
  }

 private:
  static constexpr std::byte kUntouched{0xA5};

  template <class F>
  void for_every_element(const F& visit) {
    for (const Shard& shard : shards_) {
      for (int64_t r = 0; r < shard.num_rows; ++r) {
        for (int64_t c = 0; c < shard.num_cols; ++c)
          visit(shard.tensor, shard.row_begin + r, shard.col_begin + c,
                static_cast<std::byte*>(shard.data) +
                    static_cast<std::size_t>(r * shard.row_stride + c) * size_of(shard.tensor.dtype));
      }
    }
  }

  int64_t padding_;
  std::vector<std::vector<std::byte>> memory_;
  std::vector<Shard> shards_;
};

/// Which rectangles of a tensor one of `size` ranks holds.
struct Tiling {
  const char* name;
  std::function<std::vector<Rectangle>(const LogicalTensor&, int rank, int size)> regions;
};

/// Part `i` of `n` nearly equal parts.
inline std::pair<int64_t, int64_t> part(int64_t total, int i, int n) {
  const int64_t begin = total * i / n;
  return {begin, total * (i + 1) / n - begin};
}

inline std::vector<Tiling> tilings() {
  const auto rows = [](const LogicalTensor& tensor, int rank, int size) {
    const auto [begin, count] = part(tensor.rows, rank, size);
    return std::vector<Rectangle>{{begin, count, 0, whole(tensor).num_cols}};
  };
  const auto columns = [rows](const LogicalTensor& tensor, int rank, int size) {
    if (tensor.cols == 0) return rows(tensor, rank, size);
    const auto [begin, count] = part(tensor.cols, rank, size);
    return std::vector<Rectangle>{{0, tensor.rows, begin, count}};
  };
  const auto grid = [rows](const LogicalTensor& tensor, int rank, int size) {
    if (tensor.cols == 0 || size % 2 != 0) return rows(tensor, rank, size);
    const auto [row, num_rows] = part(tensor.rows, rank / 2, size / 2);
    const auto [col, num_cols] = part(tensor.cols, rank % 2, 2);
    return std::vector<Rectangle>{{row, num_rows, col, num_cols}};
  };
  const auto last_rank = [](const LogicalTensor& tensor, int rank, int size) {
    return rank == size - 1 ? std::vector<Rectangle>{whole(tensor)} : std::vector<Rectangle>{};
  };
  const auto patches = [](const LogicalTensor& tensor, int rank, int size) {
    std::vector<Rectangle> regions;
    const Rectangle area = whole(tensor);
    int next = 0;
    for (int64_t row = 0; row < area.num_rows; row += 5) {
      for (int64_t col = 0; col < area.num_cols; col += 7) {
        if (next++ % size == rank)
          regions.push_back({row, std::min<int64_t>(5, area.num_rows - row), col,
                             std::min<int64_t>(7, area.num_cols - col)});
      }
    }
    return regions;
  };
  return {
      {"rows", rows}, {"columns", columns}, {"grid", grid}, {"last rank", last_rank}, {"patches", patches}};
}

inline OwnedShards shards_of(const Tiling& tiling, int rank, int size, int64_t padding) {
  OwnedShards owned(padding);
  for (const LogicalTensor& tensor : model_tensors()) {
    for (const Rectangle& region : tiling.regions(tensor, rank, size)) owned.add(tensor, region);
  }
  return owned;
}

}  // namespace red::checkpoint::test

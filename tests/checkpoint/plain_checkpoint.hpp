// A small checkpoint by two writers whose values can be told by eye: element (row, col) of a matrix is
// row + col / 8, element i of the vector is -i, and one element is NaN. No MPI.
#pragma once

#include <cmath>
#include <filesystem>
#include <limits>
#include <vector>

#include "checkpoint/manifest.hpp"
#include "checkpoint/shard_writer.hpp"

namespace red::checkpoint::test {

inline const LogicalTensor kPlainMatrix{"parameters/embedding.weight", 6, 4, DType::fp32};
inline const LogicalTensor kPlainVector{"parameters/final_norm.gain", 5, 0, DType::fp32};
inline const LogicalTensor kPlainState{"optimizer/v/embedding.weight", 6, 4, DType::fp64};
inline constexpr int64_t kPlainNanRow = 3;  ///< of the optimizer state, column 2

inline Metadata plain_metadata() {
  Metadata metadata;
  metadata.step = 7;
  metadata.sample_cursor = 56;
  metadata.configuration = "# made by a test\n[model]\nname = plain\nkind = dec\n\n[train]\nsteps = 10\n";
  metadata.layout = "data 2 x tensor 1 x (encoder 0 + decoder 1)";
  metadata.tokenizer_digest = "00ff";
  metadata.extra = {{"updates", "7"}};
  return metadata;
}

template <class T>
std::vector<T> plain_rows(const LogicalTensor& tensor, int64_t row_begin, int64_t num_rows) {
  std::vector<T> values;
  for (int64_t row = row_begin; row < row_begin + num_rows; ++row) {
    if (tensor.cols == 0) values.push_back(static_cast<T>(-row));
    for (int64_t col = 0; col < tensor.cols; ++col) {
      const bool nan = tensor.path == kPlainState.path && row == kPlainNanRow && col == 2;
      values.push_back(nan ? std::numeric_limits<T>::quiet_NaN()
                           : static_cast<T>(row) + static_cast<T>(col) / 8);
    }
  }
  return values;
}

/// Writes into an empty folder.
inline void write_plain_checkpoint(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  const Metadata metadata = plain_metadata();
  std::vector<ShardFile> files;
  std::vector<ShardRecord> records;
  for (int writer = 0; writer < 2; ++writer) {
    const int64_t begin = 4 * writer, count = writer == 0 ? 4 : 2;
    std::vector<float> matrix = plain_rows<float>(kPlainMatrix, begin, count);
    std::vector<double> state = plain_rows<double>(kPlainState, begin, count);
    std::vector<float> vector = plain_rows<float>(kPlainVector, 0, 5);
    std::vector<Shard> shards = {{kPlainMatrix, begin, count, 0, 4, matrix.data(), 4},
                                 {kPlainState, begin, count, 0, 4, state.data(), 4}};
    if (writer == 1) shards.push_back({kPlainVector, 0, 5, 0, 1, vector.data(), 1});
    const std::string name = shard_file_name(writer);
    records.push_back(write_shard_file(folder / name, {7, 56, writer, 2}, shards, [] {}));
    files.push_back({name, records.back().num_bytes, records.back().structure_crc32c});
  }
  const auto tiles = [&](std::size_t which) -> std::vector<Tile> {
    return {{{0, 4, 0, 4}, 0, records[0].tile_crc32c[which]},
            {{4, 2, 0, 4}, 1, records[1].tile_crc32c[which]}};
  };
  const std::vector<TiledTensor> tensors = {{kPlainState, tiles(1)},
                                            {kPlainMatrix, tiles(0)},
                                            {kPlainVector, {{{0, 5, 0, 1}, 1, records[1].tile_crc32c[2]}}}};
  write_index(folder / kIndexName, metadata, tensors, files);
}

}  // namespace red::checkpoint::test

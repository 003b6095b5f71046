// A model inside a checkpoint, held to what its configuration says: exactly its parameters, of their shapes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "config/run_config.hpp"
#include "model/parameter.hpp"

namespace red::convert {

/// Elements that conversions hold at a time, whatever the size of a tensor: 64 MiB in fp32.
inline constexpr int64_t kBlockElements = int64_t{1} << 24;

class ModelCheckpoint {
 public:
  /// Throws DataError naming parameters that are missing, unexpected, or of another shape or dtype than fp32.
  explicit ModelCheckpoint(const std::filesystem::path& folder,
                           std::size_t most_open_shards = checkpoint::Reader::kMostOpenShards);

  const std::filesystem::path& folder() const { return folder_; }
  const checkpoint::Reader& reader() const { return reader_; }
  const config::RunConfig& config() const { return config_; }
  const std::vector<model::ParameterSpec>& parameters() const { return parameters_; }
  uint64_t num_bytes() const;  ///< of the parameters in fp32

  /// Rows x columns of a parameter into `values`, row after row.
  void read(const model::ParameterSpec& spec, const model::ParameterRegion& region,
            std::span<float> values) const;

 private:
  std::filesystem::path folder_;
  checkpoint::Reader reader_;
  config::RunConfig config_;
  std::vector<model::ParameterSpec> parameters_;
};

/// "parameters/NAME" with its shape.
checkpoint::LogicalTensor logical_tensor(const model::ParameterSpec& spec);

/// f(first row, rows) for blocks of whole rows with at most kBlockElements elements, or single rows.
void for_each_row_block(int64_t rows, int64_t cols, const std::function<void(int64_t, int64_t)>& f);

}  // namespace red::convert

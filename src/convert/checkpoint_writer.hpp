// A new run's folder with one checkpoint, out of tensors that are made piece by piece. They wait in a file
// without a name; from there checkpoint::save takes them like any rank's, so that the format is known in one
// place, and pages that were read are given back: memory does not grow with the model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "convert/new_folder.hpp"
#include "model/parameter.hpp"

namespace red::convert {

class CheckpointWriter {
 public:
  /// All of fp32. What is not saved goes. Throws ConfigError where `run_dir` exists, IoError where there is
  /// no room.
  CheckpointWriter(const std::filesystem::path& run_dir, std::span<const checkpoint::LogicalTensor> tensors);

  /// Rows x columns of tensor `index`, row after row. Every element must come once.
  void write(std::size_t index, const model::ParameterRegion& region, std::span<const float> values);
  /// A file beside the checkpoints; before save().
  void write_file(const std::string& name, std::string_view text) const;
  /// run_dir/checkpoints/step-N. The folder has its name only afterwards.
  void save(const checkpoint::Metadata& metadata);

 private:
  struct Entry {
    checkpoint::LogicalTensor tensor;
    uint64_t offset;  ///< in the file, a multiple of 64
    int64_t cols() const { return tensor.cols == 0 ? 1 : tensor.cols; }
  };
  std::vector<checkpoint::Shard> shards(std::byte* memory) const;

  /// An open file of nobody's name.
  struct Scratch {
    int descriptor = -1;
    Scratch() = default;
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
  };

  NewFolder folder_;
  std::vector<Entry> entries_;
  uint64_t num_bytes_ = 0;
  Scratch scratch_;
};

}  // namespace red::convert

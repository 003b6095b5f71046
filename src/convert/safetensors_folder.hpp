// The weights of a model as Transformers keeps them: model.safetensors, or several files named
// model-00001-of-00003.safetensors with model.safetensors.index.json, which says what is where.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "convert/safetensors.hpp"

namespace red::convert {

class SafetensorsFolder {
 public:
  /// Opens and checks every file. Throws DataError: no weights, an index that names other files or tensors
  /// than are there, a file name that leads out of the folder, and what SafetensorsFile finds.
  explicit SafetensorsFolder(const std::filesystem::path& folder);

  std::vector<SafeTensor> tensors() const;  ///< by name
  bool contains(const std::string& name) const { return places_.contains(name); }
  const SafeTensor& at(const std::string& name) const { return *places_.at(name).tensor; }
  /// As SafetensorsFile::read.
  void read(const std::string& name, int64_t first, std::span<float> values) const;

 private:
  struct Place {
    const SafetensorsFile* file;
    const SafeTensor* tensor;
  };
  void add_file(const std::filesystem::path& path);
  void read_index(const std::filesystem::path& folder, const std::filesystem::path& index);

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, Place> places_;
};

/// Writes such a folder front to back. Tensors are never divided: a file is full when the next one would take
/// it over `max_file_bytes`.
class SafetensorsFolderWriter {
 public:
  SafetensorsFolderWriter(std::filesystem::path folder, std::vector<SafeTensor> tensors,
                          uint64_t max_file_bytes);

  /// The next elements of the tensor at hand, in any number of pieces.
  void append(std::span<const float> values);
  /// The index, where there are several files; all tensors must be complete.
  void finish();
  std::size_t num_files() const { return first_.size() - 1; }

 private:
  std::string file_name(std::size_t file) const;
  void open(std::size_t file);

  std::filesystem::path folder_;
  std::vector<SafeTensor> tensors_;
  std::vector<std::size_t> first_;  ///< tensor of each file, and their number
  std::unique_ptr<SafetensorsWriter> writer_;
  std::size_t file_ = 0, tensor_ = 0;
  int64_t done_ = 0;  ///< elements of the tensor at hand
};

}  // namespace red::convert

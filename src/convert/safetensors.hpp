// safetensors files: eight bytes with the length of a JSON header, the header (name -> dtype, shape, place),
// then the tensors' bytes, little-endian, one after another without gaps. A file by somebody else is not
// trusted: its header is bounded, and names, sizes and places are checked before a byte of data is read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "data/file_io.hpp"

namespace red::convert {

/// A tensor of one or two dims: cols = 0 means one.
struct SafeTensor {
  std::string name;
  DType dtype = DType::fp32;  ///< fp32 or bf16
  int64_t rows = 0;
  int64_t cols = 0;
  uint64_t offset = 0;     ///< of the first byte in the file
  uint64_t num_bytes = 0;  ///< rows * max(cols, 1) * size_of(dtype)

  int64_t size() const { return rows * (cols == 0 ? 1 : cols); }
};

class SafetensorsFile {
 public:
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;  ///< as the format's own library has it

  /// Throws DataError that says what is wrong: header too long, no JSON, a name twice or with '/' or "..",
  /// another dtype than F32 or BF16, more than two dims, places that overlap, leave gaps or lie outside the
  /// file.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<SafeTensor>& tensors() const { return tensors_; }  ///< in the order of their places
  /// Elements first ... first + values.size() - 1 of a tensor of this file; bf16 is widened, which is exact.
  void read(const SafeTensor& tensor, int64_t first, std::span<float> values) const;

 private:
  data::InputFile file_;
  std::vector<SafeTensor> tensors_;
};

/// Writes one file front to back: tensors come in the order in which they were announced.
class SafetensorsWriter {
 public:
  /// `tensors` need name, dtype and shape. `metadata` are texts for the header.
  SafetensorsWriter(const std::filesystem::path& path, std::span<const SafeTensor> tensors,
                    const std::map<std::string, std::string>& metadata);

  /// The next elements of the tensor at hand, in any number of pieces; bf16 is rounded to nearest, ties to
  /// even.
  void append(std::span<const float> values);
  /// All tensors must be complete. Durable and under its name afterwards.
  void publish();

 private:
  std::vector<SafeTensor> tensors_;
  data::OutputFile file_;
  std::size_t current_ = 0;  ///< tensor at hand
  int64_t done_ = 0;         ///< elements of it
  std::vector<bf16> narrow_;
};

}  // namespace red::convert

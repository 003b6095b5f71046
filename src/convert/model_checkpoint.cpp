#include "convert/model_checkpoint.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "base/check.hpp"
#include "base/error.hpp"
#include "config/parse.hpp"

namespace red::convert {
namespace {

constexpr std::string_view kParameters = "parameters/";
constexpr int kMaxNamed = 5;

config::RunConfig configuration_of(const checkpoint::Reader& reader, const std::filesystem::path& folder) {
  config::Sources sources;
  sources.base = {reader.metadata().configuration, (folder / "index.h5").string()};
  config::RunConfig config = config::load(sources).config;
  model::validate(config.model);
  return config;
}

std::string shape_text(const checkpoint::LogicalTensor& tensor) {
  const std::string shape =
      tensor.cols == 0 ? fmt::format("({})", tensor.rows) : fmt::format("({}, {})", tensor.rows, tensor.cols);
  return fmt::format("{} {}", shape, name_of(tensor.dtype));
}

/// Every line that says what is wrong, the first few by name.
class Complaints {
 public:
  void add(const std::string& line) {
    if (++count_ <= kMaxNamed) text_ += "\n  " + line;
  }
  void raise(const std::filesystem::path& folder) const {
    if (count_ == 0) return;
    const std::string more = count_ > kMaxNamed ? fmt::format("\n  and {} more", count_ - kMaxNamed) : "";
    throw DataError("{}: its parameters are not those of its configuration:{}{}", folder.string(), text_,
                    more);
  }

 private:
  int count_ = 0;
  std::string text_;
};

void check_tensors(const checkpoint::Reader& reader, const std::vector<model::ParameterSpec>& parameters,
                   const std::filesystem::path& folder) {
  std::map<std::string, checkpoint::LogicalTensor> stored;
  for (const checkpoint::LogicalTensor& tensor : reader.tensors()) {
    if (tensor.path.starts_with(kParameters)) stored[tensor.path] = tensor;
  }
  Complaints complaints;
  for (const model::ParameterSpec& spec : parameters) {
    const checkpoint::LogicalTensor wanted = logical_tensor(spec);
    const auto found = stored.find(wanted.path);
    if (found == stored.end()) {
      complaints.add(fmt::format("{} is missing", spec.name));
      continue;
    }
    const std::string got = shape_text(found->second), expected = shape_text(wanted);
    if (got != expected) complaints.add(fmt::format("{} is {} instead of {}", spec.name, got, expected));
    stored.erase(found);
  }
  for (const auto& [path, tensor] : stored)
    complaints.add(fmt::format("{} is unexpected", path.substr(kParameters.size())));
  complaints.raise(folder);
}

}  // namespace

checkpoint::LogicalTensor logical_tensor(const model::ParameterSpec& spec) {
  return {std::string(kParameters) + spec.name, spec.rows, spec.is_gain() ? 0 : spec.cols, DType::fp32};
}

ModelCheckpoint::ModelCheckpoint(const std::filesystem::path& folder, std::size_t most_open_shards)
    : folder_(folder),
      reader_(folder, checkpoint::Check::checksums, most_open_shards),
      config_(configuration_of(reader_, folder)),
      parameters_(model::parameter_specs(config_.model)) {
  check_tensors(reader_, parameters_, folder);
}

uint64_t ModelCheckpoint::num_bytes() const {
  uint64_t bytes = 0;
  for (const model::ParameterSpec& spec : parameters_)
    bytes += static_cast<uint64_t>(spec.size()) * sizeof(float);
  return bytes;
}

void ModelCheckpoint::read(const model::ParameterSpec& spec, const model::ParameterRegion& region,
                           std::span<float> values) const {
  RED_CHECK(static_cast<int64_t>(values.size()) == region.size(), "{} values for {}", values.size(),
            region.size());
  reader_.read({logical_tensor(spec), region.row_begin, region.num_rows, region.col_begin, region.num_cols,
                values.data(), region.num_cols});
}

void for_each_row_block(int64_t rows, int64_t cols, const std::function<void(int64_t, int64_t)>& f) {
  const int64_t block = std::clamp<int64_t>(kBlockElements / cols, 1, rows);
  for (int64_t row = 0; row < rows; row += block) f(row, std::min(block, rows - row));
}

}  // namespace red::convert

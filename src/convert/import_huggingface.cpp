#include "convert/import_huggingface.hpp"

#include <map>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "convert/checkpoint_writer.hpp"
#include "convert/huggingface_config.hpp"
#include "convert/huggingface_names.hpp"
#include "convert/model_checkpoint.hpp"
#include "convert/progress.hpp"
#include "convert/safetensors_folder.hpp"
#include "data/sha256.hpp"

namespace red::convert {
namespace {

namespace fs = std::filesystem;

std::string shape_text(const SafeTensor& tensor) {
  return tensor.cols == 0 ? fmt::format("({})", tensor.rows)
                          : fmt::format("({}, {})", tensor.rows, tensor.cols);
}

/// The folder has exactly these weights.
void check_weights(const SafetensorsFolder& weights, const std::vector<model::ParameterSpec>& parameters,
                   const fs::path& folder) {
  constexpr int max_named = 5;
  std::string wrong;
  int count = 0;
  const auto complain = [&](const std::string& line) {
    if (++count <= max_named) wrong += "\n  " + line;
  };
  std::map<std::string, bool> expected;
  for (const model::ParameterSpec& spec : parameters) {
    expected[spec.name] = true;
    const SafeTensor wanted = huggingface_tensor(spec, DType::fp32);
    if (!weights.contains(spec.name)) {
      complain(fmt::format("{} is missing", spec.name));
    } else if (shape_text(weights.at(spec.name)) != shape_text(wanted)) {
      complain(fmt::format("{} is {} instead of {}", spec.name, shape_text(weights.at(spec.name)),
                           shape_text(wanted)));
    }
  }
  for (const SafeTensor& tensor : weights.tensors()) {
    if (!expected.contains(tensor.name)) complain(fmt::format("{} is unexpected", tensor.name));
  }
  if (count > max_named) wrong += fmt::format("\n  and {} more", count - max_named);
  if (count > 0)
    throw DataError("{}: its weights are not those of its config.json:{}", folder.string(), wrong);
}

/// Rows of the matrix there are columns here.
void copy_transposed(const SafetensorsFolder& weights, const model::ParameterSpec& spec, std::size_t index,
                     CheckpointWriter& out, Progress& progress) {
  std::vector<float> block, turned;
  for_each_row_block(spec.cols, spec.rows, [&](int64_t first, int64_t count) {
    block.resize(static_cast<std::size_t>(count * spec.rows));
    turned.resize(block.size());
    weights.read(spec.name, first * spec.rows, block);
    transpose(block, count, spec.rows, turned);
    out.write(index, {0, spec.rows, first, count}, turned);
    progress.add(block.size() * sizeof(float));
  });
}

void copy_as_is(const SafetensorsFolder& weights, const model::ParameterSpec& spec, std::size_t index,
                CheckpointWriter& out, Progress& progress) {
  std::vector<float> block;
  for_each_row_block(spec.rows, spec.cols, [&](int64_t first, int64_t count) {
    block.resize(static_cast<std::size_t>(count * spec.cols));
    weights.read(spec.name, first * spec.cols, block);
    out.write(index, {first, count, 0, spec.cols}, block);
    progress.add(block.size() * sizeof(float));
  });
}

/// The SentencePiece file of the export, if it is there.
std::string tokenizer_bytes(const fs::path& folder, const std::string& digest) {
  const fs::path path = folder / kTokenizerModelName;
  if (!fs::exists(path)) return {};
  std::string bytes = data::read_whole(path);
  const std::string found = data::sha256_hex(bytes);
  if (!digest.empty() && found != digest)
    throw DataError("{}: is not the tokenizer that config.json names: SHA-256 {} there, {} here",
                    path.string(), digest, found);
  return bytes;
}

}  // namespace

ImportResult import_huggingface(const fs::path& folder, const fs::path& run_dir) {
  constexpr const char* tokenizer_name = "tokenizer.model";
  ImportResult result;
  result.has_tokenizer = fs::exists(folder / kTokenizerModelName);
  const ImportedConfig config = read_huggingface_config(
      folder / "config.json", result.has_tokenizer ? (run_dir / tokenizer_name).string() : std::string());
  const SafetensorsFolder weights(folder);
  const std::vector<model::ParameterSpec> parameters = model::parameter_specs(config.model);
  check_weights(weights, parameters, folder);
  const std::string tokenizer = tokenizer_bytes(folder, config.origin.tokenizer_sha256);
  std::vector<checkpoint::LogicalTensor> tensors;
  uint64_t num_bytes = 0;
  for (const model::ParameterSpec& spec : parameters) {
    tensors.push_back(logical_tensor(spec));
    num_bytes += static_cast<uint64_t>(spec.size()) * sizeof(float);
    result.widened = result.widened || weights.at(spec.name).dtype == DType::bf16;
  }
  CheckpointWriter out(run_dir, tensors);
  Progress progress(fmt::format("importing {}", folder.string()), num_bytes);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (is_transposed(parameters[i])) {
      copy_transposed(weights, parameters[i], i, out, progress);
    } else {
      copy_as_is(weights, parameters[i], i, out, progress);
    }
  }
  if (result.has_tokenizer) out.write_file(tokenizer_name, tokenizer);
  checkpoint::Metadata metadata;
  metadata.step = config.origin.step;
  metadata.configuration = config.configuration;
  metadata.layout = "imported from Transformers";
  metadata.tokenizer_digest = config.origin.tokenizer_sha256;
  out.save(metadata);
  progress.finish();
  return result;
}

}  // namespace red::convert

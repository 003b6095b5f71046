#include "convert/export_huggingface.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "convert/huggingface_code.hpp"
#include "convert/huggingface_config.hpp"
#include "convert/huggingface_names.hpp"
#include "convert/huggingface_tokenizer.hpp"
#include "convert/new_folder.hpp"
#include "convert/progress.hpp"
#include "convert/safetensors_folder.hpp"

namespace red::convert {
namespace {

void check_tokenizer(const ModelCheckpoint& model, const TokenizerSource& tokenizer) {
  const int64_t vocabulary = model.config().model.vocab_size;
  if (tokenizer.ids.vocabulary_size != vocabulary)
    throw ConfigError("tokenizer {} has {} pieces, but model.vocab_size of {} is {}", tokenizer.name,
                      tokenizer.ids.vocabulary_size, model.folder().string(), vocabulary);
  const std::string& digest = model.reader().metadata().tokenizer_digest;
  if (!digest.empty() && digest != tokenizer.ids.tokenizer_sha256)
    throw ConfigError("tokenizer {} is not the one of {}: SHA-256 {} there, {} here", tokenizer.name,
                      model.folder().string(), digest, tokenizer.ids.tokenizer_sha256);
}

std::vector<SafeTensor> tensors_of(const ModelCheckpoint& model, DType dtype) {
  std::vector<SafeTensor> tensors;
  for (const model::ParameterSpec& spec : model.parameters())
    tensors.push_back(huggingface_tensor(spec, dtype));
  return tensors;
}

/// y = x W here, y = x W^T there: columns become rows, a block of columns at a time.
void write_transposed(const ModelCheckpoint& model, const model::ParameterSpec& spec,
                      SafetensorsFolderWriter& out, Progress& progress) {
  std::vector<float> block, turned;
  for_each_row_block(spec.cols, spec.rows, [&](int64_t first, int64_t count) {
    block.resize(static_cast<std::size_t>(spec.rows * count));
    turned.resize(block.size());
    model.read(spec, {0, spec.rows, first, count}, block);
    transpose(block, spec.rows, count, turned);
    out.append(turned);
    progress.add(block.size() * sizeof(float));
  });
}

void write_as_is(const ModelCheckpoint& model, const model::ParameterSpec& spec, SafetensorsFolderWriter& out,
                 Progress& progress) {
  std::vector<float> block;
  for_each_row_block(spec.rows, spec.cols, [&](int64_t first, int64_t count) {
    block.resize(static_cast<std::size_t>(count * spec.cols));
    model.read(spec, {first, count, 0, spec.cols}, block);
    out.append(block);
    progress.add(block.size() * sizeof(float));
  });
}

void write_weights(const ModelCheckpoint& model, const std::filesystem::path& folder,
                   const ExportOptions& options) {
  SafetensorsFolderWriter out(folder, tensors_of(model, options.dtype), options.max_file_bytes);
  Progress progress(fmt::format("exporting {}", model.folder().string()), model.num_bytes());
  for (const model::ParameterSpec& spec : model.parameters()) {
    if (is_transposed(spec)) {
      write_transposed(model, spec, out, progress);
    } else {
      write_as_is(model, spec, out, progress);
    }
  }
  out.finish();
  progress.finish();
}

void write_tokenizer(const ModelCheckpoint& model, const TokenizerSource& tokenizer,
                     const NewFolder& folder) {
  const config::RunConfig& config = model.config();
  const bool has_encoder = config.model.has_encoder();
  const bool ends_input = config.data.samples == data::SampleKind::pairs && config.data.end_input;
  const TokenizerFiles files =
      huggingface_tokenizer(tokenizer.bytes, tokenizer.name, tokenizer.ids,
                            {!has_encoder, has_encoder && ends_input}, trained_length(config));
  folder.write("tokenizer.json", files.tokenizer);
  folder.write("tokenizer_config.json", files.settings);
  folder.write(kTokenizerModelName, tokenizer.bytes);
}

}  // namespace

void export_huggingface(const ModelCheckpoint& model, const TokenizerSource& tokenizer,
                        const std::filesystem::path& out, const ExportOptions& options) {
  check_tokenizer(model, tokenizer);
  const config::RunConfig& config = model.config();
  NewFolder folder(out);
  folder.write("config.json",
               huggingface_config(config, tokenizer.ids, options.dtype,
                                  {model.reader().metadata().step, tokenizer.ids.tokenizer_sha256}));
  folder.write("generation_config.json",
               huggingface_generation_config(tokenizer.ids, config.model.has_encoder()));
  if (!tokenizer.bytes.empty()) write_tokenizer(model, tokenizer, folder);
  for (const CodeFile& file : huggingface_code()) folder.write(std::string(file.name), file.text);
  write_weights(model, folder.partial(), options);
  folder.publish();
}

}  // namespace red::convert

// config.json and generation_config.json: what an export says of its model, and the way back. Keys of the
// model have the names of section [model].
#pragma once

#include <filesystem>
#include <string>

#include "base/dtype.hpp"
#include "config/run_config.hpp"
#include "data/token_stream.hpp"

namespace red::convert {

/// What the export knows besides the model.
struct ExportOrigin {
  int64_t step = 0;
  std::string tokenizer_sha256;
};

/// Tokens of the longest sequences that the model was trained on: of one side of a RedLLM, of all of a
/// DecLLM.
int64_t trained_length(const config::RunConfig& config);

std::string huggingface_config(const config::RunConfig& config, const data::SpecialIds& ids, DType dtype,
                               const ExportOrigin& origin);
std::string huggingface_generation_config(const data::SpecialIds& ids, bool has_encoder);

/// What config.json says, as a configuration: [model], and of the run what an evaluation must know.
struct ImportedConfig {
  std::string configuration;  ///< INI
  model::ModelConfig model;
  ExportOrigin origin;
};

/// `tokenizer`: value of data.tokenizer; empty: not given. Throws DataError: no JSON, another model type, a
/// key that is missing or means nothing, an untied head.
ImportedConfig read_huggingface_config(const std::filesystem::path& file, const std::string& tokenizer);

}  // namespace red::convert

// A checkpoint as a folder that Transformers loads: weights, configuration, tokenizer, and the code of the
// model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "convert/model_checkpoint.hpp"
#include "data/token_stream.hpp"

namespace red::convert {

/// The tokenizer's model file, whole.
struct TokenizerSource {
  std::string bytes;
  std::string name;  ///< for messages
  data::SpecialIds ids;
};

struct ExportOptions {
  DType dtype = DType::fp32;                    ///< or bf16, rounded to nearest
  uint64_t max_file_bytes = uint64_t{5} << 30;  ///< weights beyond it are divided among files
};

/// Writes the folder `out`, which must not exist; whole or not at all. Holds two blocks of 64 MiB at a time.
/// Throws ConfigError, DataError (a tokenizer of another vocabulary, or not the checkpoint's), IoError.
void export_huggingface(const ModelCheckpoint& model, const TokenizerSource& tokenizer,
                        const std::filesystem::path& out, const ExportOptions& options);

}  // namespace red::convert

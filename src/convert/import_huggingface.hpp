// A folder of Transformers as a run with one checkpoint: fp32 weights come back bit for bit, bf16 ones
// widened.
#pragma once

#include <filesystem>

namespace red::convert {

struct ImportResult {
  bool widened = false;        ///< some weights were bf16
  bool has_tokenizer = false;  ///< run_dir/tokenizer.model is the export's SentencePiece file
};

/// Writes run_dir/checkpoints/step-N and, where the folder has one, run_dir/tokenizer.model; `run_dir` must
/// not exist. There is no optimizer state. Nothing of the folder is executed. Throws ConfigError, DataError
/// naming weights that are missing, unexpected or of another shape, IoError.
ImportResult import_huggingface(const std::filesystem::path& folder, const std::filesystem::path& run_dir);

}  // namespace red::convert

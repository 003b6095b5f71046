// The folder of a run: configuration.ini, metrics.jsonl, checkpoints/. What it may be resumed from, and with
// which configuration.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.hpp"
#include "config/run_config.hpp"

namespace red::train {

std::filesystem::path checkpoints_dir(const std::filesystem::path& run_dir);

/// Rank 0 makes the folder and writes the effective configuration; the others wait. Throws IoError on every
/// rank.
void prepare_run_directory(const std::filesystem::path& run_dir, const std::string& configuration,
                           parallel::Communicator& world);

/// The checkpoint that `resume` (auto, must, never, or a folder) means for this run; nothing: start anew.
/// Throws ConfigError when there is none and must be, or when there is one and must not be.
std::optional<std::filesystem::path> checkpoint_to_resume(const std::filesystem::path& run_dir,
                                                          const std::string& resume);

/// Throws ConfigError naming every key of the checkpoint's configuration that differs and must not: the
/// model, the form of the optimizer's state, the meaning and order of samples. Other differences are logged.
void check_resume(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                  const std::string& tokenizer_digest, const std::filesystem::path& checkpoint);

}  // namespace red::train

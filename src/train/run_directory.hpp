// The folder of a run: configuration.ini, metrics.jsonl, checkpoints/, watchdog/. What it may be resumed
// from, and with which configuration.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.hpp"
#include "config/run_config.hpp"
#include "data/sample.hpp"

namespace red::train {

std::filesystem::path checkpoints_dir(const std::filesystem::path& run_dir);
/// What each rank did when a deadline passed.
std::filesystem::path watchdog_folder(const std::filesystem::path& run_dir);

/// Rank 0 makes the folder and writes the effective configuration; the others wait. Throws IoError on every
/// rank.
void prepare_run_directory(const std::filesystem::path& run_dir, const std::string& configuration,
                           parallel::Communicator& world);

/// The checkpoint that `resume` (auto, must, never, or a folder) means for this run; nothing: start anew.
/// Every byte of it was compared with its checksums. With auto and must it is the newest that is whole, and
/// what is not is set aside (checkpoint/choose.hpp). Collective. Throws ConfigError when there is none and
/// must be, or when there is one and must not be, DataError when it is damaged.
std::optional<std::filesystem::path> checkpoint_to_resume(const std::filesystem::path& run_dir,
                                                          const std::string& resume,
                                                          parallel::Communicator& world);

/// Throws ConfigError naming every key of the checkpoint's configuration that differs and must not: the
/// model, the form of the optimizer's state, the meaning and order of samples, the sources and their weights.
/// Other differences are logged.
void check_resume(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                  const std::string& tokenizer_digest, const std::filesystem::path& checkpoint);

/// The checkpoint that checkpoint.initialize_from means. Throws ConfigError when there is none.
std::filesystem::path checkpoint_to_initialize_from(const std::filesystem::path& given);

/// Throws ConfigError naming every key that differs and must not where a new run begins with the checkpoint's
/// parameters: the model, and, unless the optimizer's state begins anew, its form.
void check_initialization(const checkpoint::Metadata& metadata, const config::RunConfig& config,
                          const std::string& tokenizer_digest, const std::filesystem::path& checkpoint);

/// Adds what each source of the provider holds to what a checkpoint keeps.
void add_contents(const data::SampleProvider& provider, std::map<std::string, std::string>& extra);
/// Throws DataError naming the source that holds something else than when the checkpoint was made.
void check_contents(const checkpoint::Metadata& metadata, const data::SampleProvider& provider,
                    const std::filesystem::path& checkpoint);

}  // namespace red::train

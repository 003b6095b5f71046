// A model out of a checkpoint, for commands that use one: --checkpoint names it, its configuration comes with
// it, and the command line may override keys.
#pragma once

#include <filesystem>

#include "config/command_line.hpp"
#include "data/tokenizer.hpp"

namespace red::launch {

/// The checkpoint's folder that `path` means: itself, or the newest of a run's folder. Throws ConfigError.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

/// The configuration inside a checkpoint with the command line's changes on top.
config::Loaded load_from_checkpoint(const std::filesystem::path& checkpoint, const config::Sources& changes);

/// The tokenizer of data.tokenizer. Throws ConfigError when its vocabulary is not model.vocab_size.
data::Tokenizer load_tokenizer(const config::RunConfig& config);

}  // namespace red::launch

// The mean of several checkpoints' parameters, as a run with one checkpoint.
#pragma once

#include <filesystem>
#include <vector>

namespace red::convert {

/// Each element is the sum in fp64, in the order given, divided by the number of checkpoints and rounded
/// once. All must be of one model and one tokenizer. Step and configuration are those of the newest; there is
/// no optimizer state. `run_dir` must not exist. Throws ConfigError naming keys that differ, DataError,
/// IoError.
void average(const std::vector<std::filesystem::path>& checkpoints, const std::filesystem::path& run_dir);

}  // namespace red::convert

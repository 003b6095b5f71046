// The questions of `redllm inspect checkpoint` that are answered from every byte: is it whole, what is its
// digest, how far is it from another. Each prints, and returns the exit code.
#pragma once

#include <filesystem>
#include <string>

namespace red::launch {

/// As find_checkpoint(), but a folder with shard files and no index is one too: its index is what is missing.
std::filesystem::path folder_to_verify(const std::string& given);

/// Throws DataError naming all damage; with `json` it is in the object, and the exit code is the same.
int verify_checkpoint(const std::filesystem::path& folder, bool json);
int print_digest(const std::filesystem::path& folder, bool json);
/// The exit code is 0 whatever differs.
int print_difference(const std::filesystem::path& folder, const std::filesystem::path& other, bool json);

}  // namespace red::launch

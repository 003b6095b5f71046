// Whether a checkpoint is whole and undamaged: every byte of its files against the checksums in its index,
// and the index against its own. Reads in pieces; memory does not grow with the checkpoint.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace red::checkpoint {

/// Of several readers that share the work, one.
struct Share {
  int index = 0;
  int count = 1;
};

/// What is missing or damaged, a line each; empty: nothing. A share is every `count`-th shard file.
/// Format 1.0 has no checksums: then only that every tile is there. Throws IoError when something cannot be
/// read that may well be there (permission, EIO).
std::vector<std::string> find_damage(const std::filesystem::path& checkpoint_dir, const Share& share = {});

/// The same of the tiles of tensors whose paths begin with `prefix`, and of nothing else. A share is of
/// tiles, in whichever files, about as many bytes as any other.
std::vector<std::string> find_damaged_tiles(const std::filesystem::path& checkpoint_dir,
                                            const std::string& prefix, const Share& share);

}  // namespace red::checkpoint

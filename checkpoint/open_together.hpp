// A checkpoint that all ranks read parts of, and whose bytes nobody has compared with their checksums yet.
#pragma once

#include <filesystem>
#include <string>

#include "checkpoint/checkpoint.hpp"
#include "parallel/communicator.hpp"

namespace red::checkpoint {

/// A reader of the tensors whose paths begin with `prefix`. The ranks share the comparing of their tiles;
/// behind it each reads only the bytes that it asks for, where it would otherwise read whole every tile that
/// it needs a part of. Collective. Every rank throws the same: DataError naming what is damaged, or IoError.
Reader open_together(const std::filesystem::path& checkpoint_dir, parallel::Communicator& world,
                     const std::string& prefix);

}  // namespace red::checkpoint

// Which checkpoint a run goes on from: the newest whose every byte agrees with its checksums. What is
// incomplete or damaged is set aside under a name that says so, never deleted and never loaded.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>

#include "parallel/communicator.hpp"

namespace red::checkpoint {

// All are collective; every rank reads a share of the files, and all return or throw the same.

/// Saves that were interrupted get a name that says so. Before the run saves. Throws IoError.
void set_aside_unfinished_together(const std::filesystem::path& checkpoints_dir,
                                   parallel::Communicator& world);

inline constexpr int64_t kAnyStep = std::numeric_limits<int64_t>::max();

/// Sets aside what is no whole checkpoint, and returns the newest that is one, of at most `most_steps` steps;
/// `latest` then names it. Nothing: there never was one. Throws DataError when there were some and all are
/// damaged (where any step will do), IoError when a rank cannot read what may be whole.
std::optional<std::filesystem::path> choose_newest(const std::filesystem::path& checkpoints_dir,
                                                   parallel::Communicator& world,
                                                   int64_t most_steps = kAnyStep);

/// Checkpoints of more steps become step-N.called-off-K, newest first. Throws IoError.
void call_off_newer_together(const std::filesystem::path& checkpoints_dir, int64_t most_steps,
                             parallel::Communicator& world);

/// Before a run goes on from a checkpoint that was named: those of this folder that are newer than it become
/// step-N.called-off-K, or the next start would take one of them, and the retention would keep them in place
/// of what is saved from now on. `latest` then names the newest that stays. Nothing where none is newer.
/// Throws IoError.
void go_back_to_together(const std::filesystem::path& checkpoints_dir,
                         const std::filesystem::path& checkpoint, int64_t step,
                         parallel::Communicator& world);

/// What is wrong with a checkpoint, a line each; empty: nothing.
std::string find_damage_together(const std::filesystem::path& checkpoint_dir, parallel::Communicator& world);

}  // namespace red::checkpoint

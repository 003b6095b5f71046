// The life of a checkpoint's folder: step-N.partial while it is written, step-N once it is whole, and the
// text file `latest` that names the newest. A folder with a final name is never written into or replaced; the
// retention alone deletes it. What is no whole checkpoint is renamed to step-N.incomplete-K or
// step-N.damaged-K, what a run went back behind to step-N.called-off-K, K counting up, and left alone from
// then on.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace red::checkpoint {

inline constexpr const char* kRemovingEnding = ".removing";  ///< of a folder that the retention deletes

std::string folder_name(int64_t step);  ///< "step-00001000"
std::filesystem::path partial_folder(const std::filesystem::path& checkpoints_dir, int64_t step);

/// Makes step-N.partial, empty: removes what an interrupted save of the same step left there. Throws IoError.
void prepare_partial(const std::filesystem::path& checkpoints_dir, int64_t step);

/// What a failed save left; a failure is only logged.
void remove_partial(const std::filesystem::path& checkpoints_dir, int64_t step) noexcept;

/// A folder whose name says that it is a whole checkpoint.
struct FoundCheckpoint {
  int64_t step = 0;
  int64_t superseded = 0;  ///< K of step-N.superseded-K; 0: step-N itself
  std::string name;
};
/// Newest first: by step, then step-N itself, then the newest superseded one. Throws IoError.
std::vector<FoundCheckpoint> list_checkpoints(const std::filesystem::path& checkpoints_dir);

/// Saves that were interrupted become step-N.incomplete-K, with a warning each; deletions that were
/// interrupted are brought to their end. When a run starts, before it saves. Throws IoError.
void set_aside_unfinished(const std::filesystem::path& checkpoints_dir);
/// Renames a checkpoint to step-N.damaged-K; returns the new name. Throws IoError.
std::string set_aside_damaged(const std::filesystem::path& checkpoints_dir, const FoundCheckpoint& found);
/// Renames a checkpoint that the run went back behind to step-N.called-off-K; returns the new name. Throws
/// IoError.
std::string call_off(const std::filesystem::path& checkpoints_dir, const FoundCheckpoint& found);
/// Whether there is a step-N.damaged-K.
bool has_damaged(const std::filesystem::path& checkpoints_dir);
/// Makes `latest` name a checkpoint, where it does not. Throws IoError.
void point_latest_to(const std::filesystem::path& checkpoints_dir, const std::string& name);
/// `latest`, where it is there, no longer is. Throws IoError.
void remove_latest(const std::filesystem::path& checkpoints_dir);

/// Gives the finished step-N.partial its final name, durably, then moves `latest`. Where step-N exists
/// already (a run was resumed before it and came by again), that one is set aside first as
/// step-N.superseded-K, with a warning. Throws IoError, having undone what it did to step-N; where even that
/// fails, step-N stays, which the message says. False: step-N is there and whole, but `latest` could not be
/// moved, which a warning says.
[[nodiscard]] bool publish(const std::filesystem::path& checkpoints_dir, int64_t step);

}  // namespace red::checkpoint

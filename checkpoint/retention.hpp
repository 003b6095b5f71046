// Which checkpoints of a run stay. Nothing is deleted unless keep_last says how many are enough; the one just
// saved, which was read back from the disk, always stays.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

namespace red::checkpoint {

struct Retention {
  int64_t keep_last = 0;   ///< so many of the newest; 0: all
  int64_t keep_every = 0;  ///< and those of every so many steps, for ever; 0: none of them
  int64_t keep_best = 0;   ///< and so many with the lowest validation loss

  bool deletes() const { return keep_last > 0; }
};

/// What the choice is made from.
struct RetainedStep {
  int64_t step = 0;
  std::optional<double> validation_loss;
};

/// The steps to delete, oldest first. `saved` is the step that was saved just now. Of equal losses the older
/// is the better one. A pure function.
std::vector<int64_t> steps_to_delete(const Retention& retention, std::vector<RetainedStep> steps,
                                     int64_t saved);

/// Deletes step-N folders; superseded, incomplete and damaged ones are left alone. Each gets a name of its
/// own first, so that a deletion that is interrupted leaves nothing that looks whole. Failures are only
/// logged.
void delete_old(const std::filesystem::path& checkpoints_dir, const Retention& retention,
                int64_t saved) noexcept;

}  // namespace red::checkpoint

#include "checkpoint/retention.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/watch.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/manifest.hpp"
#include "checkpoint/posix_file.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

/// Steps with the lowest validation loss.
std::vector<int64_t> best_steps(std::vector<RetainedStep> steps, int64_t count) {
  std::erase_if(
      steps, [](const RetainedStep& s) { return !s.validation_loss || !std::isfinite(*s.validation_loss); });
  std::sort(steps.begin(), steps.end(), [](const RetainedStep& a, const RetainedStep& b) {
    return std::pair(*a.validation_loss, a.step) < std::pair(*b.validation_loss, b.step);
  });
  std::vector<int64_t> best;
  for (const RetainedStep& s : steps) {
    if (static_cast<int64_t>(best.size()) < count) best.push_back(s.step);
  }
  return best;
}

/// An index that cannot be read costs a checkpoint its place among the best, no more.
std::optional<double> loss_of(const fs::path& checkpoint) {
  try {
    return read_metadata(checkpoint).validation_loss;
  } catch (const Error& error) {
    log::warning("its validation loss does not count for checkpoint.keep_best: {}", error.what());
    return std::nullopt;
  }
}

void delete_checkpoint(const fs::path& checkpoints_dir, int64_t step) {
  const fs::path folder = checkpoints_dir / folder_name(step);
  fs::path removing = folder;
  removing += kRemovingEnding;
  rename_path(folder, removing);
  const watch::BlockingPoint point("removing", removing.native());
  std::error_code error;
  fs::remove_all(removing, error);
  if (error)
    throw IoError("cannot remove '{}': {} (errno {})", removing.string(), error.message(), error.value());
  log::info("deleted '{}' (checkpoint.keep_last)", folder.string());
}

}  // namespace

std::vector<int64_t> steps_to_delete(const Retention& retention, std::vector<RetainedStep> steps,
                                     int64_t saved) {
  std::vector<int64_t> result;
  if (!retention.deletes()) return result;
  std::sort(steps.begin(), steps.end(),
            [](const RetainedStep& a, const RetainedStep& b) { return a.step > b.step; });
  const std::vector<int64_t> best = best_steps(steps, retention.keep_best);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    const int64_t step = steps[i].step;
    const bool stays = step == saved || static_cast<int64_t>(i) < retention.keep_last ||
                       (retention.keep_every > 0 && step % retention.keep_every == 0) ||
                       std::find(best.begin(), best.end(), step) != best.end();
    if (!stays) result.push_back(step);
  }
  std::reverse(result.begin(), result.end());
  return result;
}

void delete_old(const fs::path& checkpoints_dir, const Retention& retention, int64_t saved) noexcept {
  if (!retention.deletes()) return;
  try {
    std::vector<RetainedStep> steps;
    for (const FoundCheckpoint& found : list_checkpoints(checkpoints_dir)) {
      if (found.superseded != 0) continue;
      steps.push_back({found.step, std::nullopt});
      if (retention.keep_best > 0) steps.back().validation_loss = loss_of(checkpoints_dir / found.name);
    }
    for (const int64_t step : steps_to_delete(retention, std::move(steps), saved))
      delete_checkpoint(checkpoints_dir, step);
  } catch (const std::exception& error) {
    log::warning("old checkpoints stay: {}", error.what());
  }
}

}  // namespace red::checkpoint

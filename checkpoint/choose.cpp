#include "checkpoint/choose.hpp"

#include <algorithm>
#include <chrono>
#include <span>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "checkpoint/exchange.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMostDamage = 2000;  ///< characters of it in a line of the log

/// Runs on rank 0; all agree that it went well.
template <class F>
void on_first_rank(parallel::Communicator& world, const F& work) {
  run_agreed(world, "checkpoint: choosing the newest", [&] {
    if (world.rank() == 0) work();
  });
}

std::string shortened(std::string text) {
  if (!text.empty() && text.back() == '\n') text.pop_back();
  if (text.size() > kMostDamage) text = text.substr(0, text.rfind('\n', kMostDamage)) + "\n...";
  return text;
}

void call_off_all(const fs::path& checkpoints_dir, std::span<const FoundCheckpoint> newest_first) {
  for (const FoundCheckpoint& found : newest_first) {
    const std::string aside = call_off(checkpoints_dir, found);
    log::info("'{}' is called off: it stays as '{}', which nobody reads; delete it when you like",
              (checkpoints_dir / found.name).string(), aside);
  }
}

void go_back_to(const fs::path& checkpoints_dir, const fs::path& checkpoint, int64_t step) {
  const std::vector<FoundCheckpoint> found = list_checkpoints(checkpoints_dir);
  auto stays = std::find_if(found.begin(), found.end(), [&](const FoundCheckpoint& c) {
    std::error_code error;
    return fs::equivalent(checkpoints_dir / c.name, checkpoint, error);
  });
  if (stays == found.end())  // it lies elsewhere
    stays =
        std::find_if(found.begin(), found.end(), [&](const FoundCheckpoint& c) { return c.step <= step; });
  if (stays == found.begin()) return;
  log::warning("resume: '{}' holds {} checkpoint(s) newer than '{}': they are called off",
               checkpoints_dir.string(), stays - found.begin(), checkpoint.string());
  // `latest` first: whoever is interrupted here leaves it naming one that is there.
  if (stays != found.end()) {
    point_latest_to(checkpoints_dir, stays->name);
  } else {
    remove_latest(checkpoints_dir);
  }
  call_off_all(checkpoints_dir, {found.begin(), stays});
}

}  // namespace

std::string find_damage_together(const fs::path& checkpoint_dir, parallel::Communicator& world) {
  std::string mine;
  run_agreed(world, "checkpoint: verifying", [&] {
    for (const std::string& line : find_damage(checkpoint_dir, {world.rank(), world.size()}))
      mine += line + "\n";
  });
  return join_lines(world, mine);
}

void set_aside_unfinished_together(const fs::path& checkpoints_dir, parallel::Communicator& world) {
  on_first_rank(world, [&] { set_aside_unfinished(checkpoints_dir); });
}

void call_off_newer_together(const fs::path& checkpoints_dir, int64_t most_steps,
                             parallel::Communicator& world) {
  on_first_rank(world, [&] {
    const std::vector<FoundCheckpoint> found = list_checkpoints(checkpoints_dir);
    const auto stays = std::find_if(found.begin(), found.end(),
                                    [&](const FoundCheckpoint& c) { return c.step <= most_steps; });
    call_off_all(checkpoints_dir, {found.begin(), stays});
  });
}

void go_back_to_together(const fs::path& checkpoints_dir, const fs::path& checkpoint, int64_t step,
                         parallel::Communicator& world) {
  on_first_rank(world, [&] { go_back_to(checkpoints_dir, checkpoint, step); });
}

std::optional<fs::path> choose_newest(const fs::path& checkpoints_dir, parallel::Communicator& world,
                                      int64_t most_steps) {
  std::vector<FoundCheckpoint> found;
  bool any_damaged = false;
  on_first_rank(world, [&] {
    set_aside_unfinished(checkpoints_dir);
    found = list_checkpoints(checkpoints_dir);
    std::erase_if(found, [&](const FoundCheckpoint& c) { return c.step > most_steps; });
    any_damaged = has_damaged(checkpoints_dir);
  });
  for (std::size_t i = 0;; ++i) {
    // Rank 0 alone looks at the folder: on a network file system others may see it later.
    const std::string name = text_of_first_rank(world, i < found.size() ? found[i].name : std::string());
    if (name.empty()) break;
    const auto begin = std::chrono::steady_clock::now();
    const std::string damage = find_damage_together(checkpoints_dir / name, world);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    if (damage.empty()) {
      on_first_rank(world, [&] { point_latest_to(checkpoints_dir, name); });
      log::info("'{}' is whole: compared with its checksums in {:.2f} s", (checkpoints_dir / name).string(),
                seconds.count());
      return checkpoints_dir / name;
    }
    on_first_rank(world, [&] {
      any_damaged = true;
      const std::string aside = set_aside_damaged(checkpoints_dir, found[i]);
      log::warning("'{}' is damaged and set aside as '{}', which nobody reads:\n{}",
                   (checkpoints_dir / name).string(), aside, shortened(damage));
    });
  }
  if (text_of_first_rank(world, any_damaged ? "yes" : "").empty() || most_steps != kAnyStep)
    return std::nullopt;
  throw DataError(
      "'{}' holds damaged checkpoints (step-N.damaged-K) and none that is whole: restore one from a copy, or "
      "begin anew with another train.run_dir or with checkpoint.resume = never",
      checkpoints_dir.string());
}

}  // namespace red::checkpoint

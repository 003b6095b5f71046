#include "checkpoint/folders.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/watch.hpp"
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLatest = "latest";
constexpr std::size_t kMostLatest = 4096;  ///< bytes of it that are read

void check(const std::error_code& error, const char* what, const fs::path& path) {
  if (error)
    throw IoError("cannot {} '{}': {} (errno {})", what, path.string(), error.message(), error.value());
}

bool is_there(const fs::path& path) {
  const watch::BlockingPoint looking("looking at", path.native());
  std::error_code error;
  const bool found = fs::exists(fs::symlink_status(path, error));
  if (error && error != std::errc::no_such_file_or_directory) check(error, "look at", path);
  return found;
}

constexpr const char* kSuperseded = "superseded";
constexpr const char* kIncomplete = "incomplete";
constexpr const char* kDamaged = "damaged";
constexpr const char* kCalledOff = "called-off";
constexpr const char* kPartialEnding = ".partial";

/// The whole text as a number of digits alone.
std::optional<int64_t> number_of(std::string_view text) {
  int64_t number = 0;
  if (text.empty() || text.front() == '-') return std::nullopt;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return number;
}

/// Names in a folder in alphabetical order; none where it is not there.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  if (!is_there(folder)) return names;
  const watch::BlockingPoint listing("listing", folder.native());
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    names.push_back(entry->path().filename().string());
  check(error, "list", folder);
  std::sort(names.begin(), names.end());
  return names;
}

std::string numbered_prefix(const std::string& name, const char* what) {
  return fmt::format("{}.{}-", name, what);
}

/// The highest K of name.what-K, the newest of them; 0: there is none.
int64_t newest_numbered(const fs::path& checkpoints_dir, const std::string& name, const char* what) {
  const std::string prefix = numbered_prefix(name, what);
  int64_t newest = 0;
  for (const std::string& found : names_in(checkpoints_dir)) {
    if (!found.starts_with(prefix)) continue;
    newest = std::max(newest, number_of(std::string_view(found).substr(prefix.size())).value_or(0));
  }
  return newest;
}

/// name.what-K with the next K.
std::string next_numbered(const fs::path& checkpoints_dir, const std::string& name, const char* what) {
  return numbered_prefix(name, what) + std::to_string(newest_numbered(checkpoints_dir, name, what) + 1);
}

/// "step-00000012", "step-00000012.superseded-3"; nothing for any other name.
std::optional<FoundCheckpoint> parse_name(const std::string& name) {
  constexpr std::string_view prefix = "step-";
  if (!name.starts_with(prefix)) return std::nullopt;
  const std::string_view rest = std::string_view(name).substr(prefix.size());
  const std::size_t dot = rest.find('.');
  const auto step = number_of(rest.substr(0, dot));
  if (!step || name.substr(0, prefix.size() + std::min(dot, rest.size())) != folder_name(*step))
    return std::nullopt;
  if (dot == std::string_view::npos) return FoundCheckpoint{*step, 0, name};
  const std::string ending = numbered_prefix("", kSuperseded);
  if (!rest.substr(dot).starts_with(ending)) return std::nullopt;
  const auto number = number_of(rest.substr(dot + ending.size()));
  if (!number || *number == 0) return std::nullopt;
  return FoundCheckpoint{*step, *number, name};
}

}  // namespace

std::string folder_name(int64_t step) {
  if (step < 0) throw LogicError("a checkpoint of step {}", step);
  return fmt::format("step-{:08}", step);
}

fs::path partial_folder(const fs::path& checkpoints_dir, int64_t step) {
  return checkpoints_dir / (folder_name(step) + kPartialEnding);
}

void prepare_partial(const fs::path& checkpoints_dir, int64_t step) {
  const watch::BlockingPoint preparing("preparing a save in", checkpoints_dir.native());
  std::error_code error;
  fs::create_directories(checkpoints_dir, error);
  check(error, "create folder", checkpoints_dir);
  const fs::path partial = partial_folder(checkpoints_dir, step);
  if (is_there(partial)) {
    log::warning("removing '{}', which an earlier save left unfinished", partial.string());
    fs::remove_all(partial, error);
    check(error, "remove", partial);
  }
  fs::create_directory(partial, error);
  check(error, "create folder", partial);
  sync_folder(checkpoints_dir);
}

void remove_partial(const fs::path& checkpoints_dir, int64_t step) noexcept {
  try {
    std::error_code error;
    const fs::path partial = partial_folder(checkpoints_dir, step);
    const watch::BlockingPoint removing("removing", partial.native());
    fs::remove_all(partial, error);
    check(error, "remove", partial);
  } catch (const std::exception& error) {
    log::warning("{}", error.what());
  }
}

std::vector<FoundCheckpoint> list_checkpoints(const fs::path& checkpoints_dir) {
  std::vector<FoundCheckpoint> found;
  for (const std::string& name : names_in(checkpoints_dir)) {
    if (auto checkpoint = parse_name(name)) found.push_back(std::move(*checkpoint));
  }
  const auto age = [](const FoundCheckpoint& c) {
    return std::pair(-c.step, c.superseded == 0 ? std::numeric_limits<int64_t>::min() : -c.superseded);
  };
  std::sort(found.begin(), found.end(),
            [&](const FoundCheckpoint& a, const FoundCheckpoint& b) { return age(a) < age(b); });
  return found;
}

namespace {

/// What a deletion left behind is in nobody's way: where it stays, a run begins all the same.
void finish_removing(const fs::path& path) {
  const watch::BlockingPoint removing("removing", path.native());
  std::error_code error;
  fs::remove_all(path, error);
  if (error)
    log::warning(
        "cannot remove '{}', a checkpoint that was being deleted: {} (errno {}); delete it when you like",
        path.string(), error.message(), error.value());
}

}  // namespace

void set_aside_unfinished(const fs::path& checkpoints_dir) {
  for (const std::string& name : names_in(checkpoints_dir)) {
    const fs::path path = checkpoints_dir / name;
    if (!parse_name(path.stem().string())) continue;  // none of ours
    if (path.extension() == kRemovingEnding) finish_removing(path);
    if (path.extension() != kPartialEnding) continue;
    const std::string aside = next_numbered(checkpoints_dir, path.stem().string(), kIncomplete);
    rename_path(path, checkpoints_dir / aside);
    log::warning(
        "'{}' is a save that was never finished: set aside as '{}', which nobody reads; delete it when "
        "you like",
        path.string(), aside);
  }
}

namespace {

std::string set_aside(const fs::path& checkpoints_dir, const FoundCheckpoint& found, const char* what) {
  std::string aside = next_numbered(checkpoints_dir, folder_name(found.step), what);
  rename_path(checkpoints_dir / found.name, checkpoints_dir / aside);
  sync_folder(checkpoints_dir);
  return aside;
}

}  // namespace

std::string set_aside_damaged(const fs::path& checkpoints_dir, const FoundCheckpoint& found) {
  return set_aside(checkpoints_dir, found, kDamaged);
}

std::string call_off(const fs::path& checkpoints_dir, const FoundCheckpoint& found) {
  return set_aside(checkpoints_dir, found, kCalledOff);
}

bool has_damaged(const fs::path& checkpoints_dir) {
  const std::string part = numbered_prefix("", kDamaged);
  const std::vector<std::string> names = names_in(checkpoints_dir);
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return name.starts_with("step-") && name.find(part) != std::string::npos;
  });
}

void point_latest_to(const fs::path& checkpoints_dir, const std::string& name) {
  if (read_text_if_there(checkpoints_dir / kLatest, kMostLatest) == name + "\n") return;
  replace_file(checkpoints_dir / kLatest, name + "\n");
}

void remove_latest(const fs::path& checkpoints_dir) {
  std::error_code error;
  fs::remove(checkpoints_dir / kLatest, error);
  check(error, "remove", checkpoints_dir / kLatest);
  sync_folder(checkpoints_dir);
}

namespace {

/// The finished folder's last renaming; `aside`, where it is not empty, is what had its name before.
void rename_durably(const fs::path& partial, const fs::path& final_folder, const fs::path& aside) {
  bool renamed = false;
  try {
    rename_path(partial, final_folder);
    renamed = true;
    sync_folder(final_folder.parent_path());
  } catch (const IoError& failure) {
    try {
      if (renamed) rename_path(final_folder, partial);
      if (!aside.empty()) rename_path(aside, final_folder);
    } catch (const IoError& undoing) {
      throw IoError("{}; and what was renamed stays so: {}", failure.what(), undoing.what());
    }
    throw;
  }
}

}  // namespace

bool publish(const fs::path& checkpoints_dir, int64_t step) {
  const std::string name = folder_name(step);
  const fs::path final_folder = checkpoints_dir / name;
  fs::path aside;
  if (is_there(final_folder)) {
    aside = checkpoints_dir / next_numbered(checkpoints_dir, name, kSuperseded);
    log::warning("'{}' exists already: it stays as '{}'", final_folder.string(), aside.filename().string());
    // From here until the next rename step-N has no folder; find_latest knows to look for this one.
    rename_path(final_folder, aside);
  }
  rename_durably(partial_folder(checkpoints_dir, step), final_folder, aside);
  try {
    replace_file(checkpoints_dir / kLatest, name + "\n");
  } catch (const IoError& error) {
    log::warning("'{}' is saved, but '{}' could not be replaced durably, so nothing older is deleted: {}",
                 final_folder.string(), kLatest, error.what());
    return false;
  }
  return true;
}

std::optional<fs::path> find_latest(const fs::path& checkpoints_dir) {
  const fs::path pointer = checkpoints_dir / kLatest;
  const auto text = read_text_if_there(pointer, kMostLatest);
  if (!text) return std::nullopt;
  if (text->empty()) throw DataError("'{}' is empty", pointer.string());
  const std::string name = text->substr(0, text->find('\n'));
  if (!is_plain_path(name) || name.find('/') != std::string::npos)
    throw DataError("'{}' names '{}', which is no folder beside it", pointer.string(), name);
  const fs::path folder = checkpoints_dir / name;
  if (is_there(folder)) return folder;
  // Killed between the two renames of publish(): the older save of that step is whole, under its new name.
  const int64_t number = newest_numbered(checkpoints_dir, name, kSuperseded);
  if (number == 0)
    throw DataError(
        "'{}' names '{}', which is not there: write the name of another checkpoint into it, or remove it",
        pointer.string(), folder.string());
  fs::path superseded = checkpoints_dir / (numbered_prefix(name, kSuperseded) + std::to_string(number));
  log::warning("'{}' names '{}', which is not there; using '{}'", pointer.string(), name,
               superseded.string());
  return superseded;
}

}  // namespace red::checkpoint

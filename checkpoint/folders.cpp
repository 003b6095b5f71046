#include "checkpoint/folders.hpp"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "base/error.hpp"
#include "base/log.hpp"
#include "checkpoint/checkpoint.hpp"
#include "checkpoint/posix_file.hpp"
#include "checkpoint/shard_layout.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLatest = "latest";

void check(const std::error_code& error, const char* what, const fs::path& path) {
  if (error)
    throw IoError("cannot {} '{}': {} (errno {})", what, path.string(), error.message(), error.value());
}

bool is_there(const fs::path& path) {
  std::error_code error;
  const bool found = fs::exists(fs::symlink_status(path, error));
  if (error && error != std::errc::no_such_file_or_directory) check(error, "look at", path);
  return found;
}

std::string superseded_prefix(const std::string& name) {
  return name + ".superseded-";
}

/// The highest K of name.superseded-K, the newest of them; 0: there is none.
int64_t newest_superseded(const fs::path& checkpoints_dir, const std::string& name) {
  const std::string prefix = superseded_prefix(name);
  int64_t newest = 0;
  std::error_code error;
  for (fs::directory_iterator entry(checkpoints_dir, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string found = entry->path().filename().string();
    if (!found.starts_with(prefix)) continue;
    int64_t number = 0;
    const char* last = found.data() + found.size();
    const auto parsed = std::from_chars(found.data() + prefix.size(), last, number);
    if (parsed.ec == std::errc() && parsed.ptr == last) newest = std::max(newest, number);
  }
  check(error, "list", checkpoints_dir);
  return newest;
}

fs::path superseded_folder(const fs::path& checkpoints_dir, const std::string& name, int64_t number) {
  return checkpoints_dir / (superseded_prefix(name) + std::to_string(number));
}

}  // namespace

std::string folder_name(int64_t step) {
  if (step < 0) throw LogicError("a checkpoint of step {}", step);
  return fmt::format("step-{:08}", step);
}

fs::path partial_folder(const fs::path& checkpoints_dir, int64_t step) {
  return checkpoints_dir / (folder_name(step) + ".partial");
}

void prepare_partial(const fs::path& checkpoints_dir, int64_t step) {
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

void publish(const fs::path& checkpoints_dir, int64_t step) {
  const std::string name = folder_name(step);
  const fs::path final_folder = checkpoints_dir / name;
  fs::path aside;
  if (is_there(final_folder)) {
    aside = superseded_folder(checkpoints_dir, name, newest_superseded(checkpoints_dir, name) + 1);
    log::warning("'{}' exists already: it stays as '{}'", final_folder.string(), aside.filename().string());
    // From here until the next rename step-N has no folder; find_latest knows to look for this one.
    rename_path(final_folder, aside);
  }
  try {
    rename_path(partial_folder(checkpoints_dir, step), final_folder);
  } catch (const IoError&) {
    if (!aside.empty()) rename_path(aside, final_folder);
    throw;
  }
  sync_folder(checkpoints_dir);
  replace_file(checkpoints_dir / kLatest, name + "\n");
}

std::optional<fs::path> find_latest(const fs::path& checkpoints_dir) {
  const fs::path pointer = checkpoints_dir / kLatest;
  if (!is_there(pointer)) return std::nullopt;
  std::ifstream in(pointer);
  std::string name;
  if (!std::getline(in, name)) throw DataError("'{}' is empty or unreadable", pointer.string());
  if (!is_plain_path(name) || name.find('/') != std::string::npos)
    throw DataError("'{}' names '{}', which is no folder beside it", pointer.string(), name);
  const fs::path folder = checkpoints_dir / name;
  if (is_there(folder)) return folder;
  // Killed between the two renames of publish(): the older save of that step is whole, under its new name.
  const int64_t number = newest_superseded(checkpoints_dir, name);
  if (number == 0)
    throw DataError(
        "'{}' names '{}', which is not there: write the name of another checkpoint into it, or remove it",
        pointer.string(), folder.string());
  fs::path superseded = superseded_folder(checkpoints_dir, name, number);
  log::warning("'{}' names '{}', which is not there; using '{}'", pointer.string(), name,
               superseded.string());
  return superseded;
}

}  // namespace red::checkpoint

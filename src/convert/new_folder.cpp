#include "convert/new_folder.hpp"

#include <system_error>

#include "base/error.hpp"
#include "base/log.hpp"
#include "checkpoint/posix_file.hpp"
#include "data/file_io.hpp"

namespace red::convert {
namespace {

namespace fs = std::filesystem;

void check(const std::error_code& error, const char* what, const fs::path& path) {
  if (error)
    throw IoError("cannot {} '{}': {} (errno {})", what, path.string(), error.message(), error.value());
}

fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

}  // namespace

void check_new(const fs::path& path) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(path, error)))
    throw ConfigError("'{}' exists already: give another name, or remove it", path.string());
}

NewFolder::NewFolder(const fs::path& path) : path_(without_slash(path)), partial_(path_) {
  check_new(path_);
  partial_ += ".partial";
  std::error_code error;
  fs::remove_all(partial_, error);
  check(error, "remove", partial_);
  fs::create_directories(partial_, error);
  check(error, "create folder", partial_);
}

NewFolder::~NewFolder() {
  if (published_) return;
  std::error_code error;
  fs::remove_all(partial_, error);
  if (error) log::warning("cannot remove '{}': {}", partial_.string(), error.message());
}

void NewFolder::write(const std::string& name, std::string_view text) const {
  data::OutputFile file(partial_ / name);
  file.append(text);
  file.publish();
}

void NewFolder::publish() {
  checkpoint::sync_folder(partial_);
  checkpoint::rename_path(partial_, path_);
  published_ = true;
  const fs::path parent = path_.parent_path();
  checkpoint::sync_folder(parent.empty() ? fs::path(".") : parent);
}

}  // namespace red::convert

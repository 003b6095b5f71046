// A folder that appears whole or not at all: its files are written into NAME.partial, which is renamed when
// all of them are on disk.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace red::convert {

class NewFolder {
 public:
  /// Throws ConfigError where something of this name exists already. What an earlier run left in NAME.partial
  /// goes.
  explicit NewFolder(const std::filesystem::path& path);
  /// Takes the partial folder along unless it was published.
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::filesystem::path& partial() const { return partial_; }  ///< where files are written
  /// A whole small file, durable.
  void write(const std::string& name, std::string_view text) const;
  /// The files must be durable already; the folder is afterwards.
  void publish();

 private:
  std::filesystem::path path_, partial_;
  bool published_ = false;
};

/// For single files: throws ConfigError where something of this name exists already.
void check_new(const std::filesystem::path& path);

}  // namespace red::convert

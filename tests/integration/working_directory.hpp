// A folder for the files of one test, gone with it.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>

#include "support/temporary_folder.hpp"

namespace red::test {

inline void write_bytes(const std::filesystem::path& path, const std::string& bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  if (!out) throw std::runtime_error("cannot write " + path.string());
}

inline std::string read_bytes(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

class WorkingDirectory {
 public:
  /// With these files in it; a name ending in '/' is a folder.
  explicit WorkingDirectory(const std::map<std::string, std::string>& files = {}) {
    for (const auto& [file, text] : files) {
      if (file.ends_with('/')) {
        std::filesystem::create_directories(path() / file);
      } else {
        write_bytes(path() / file, text);
      }
    }
  }

  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace red::test

// A folder of small files for one test, gone with it, and the message that an action fails with.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.hpp"

namespace red::test {

class ConfigFiles {
 public:
  ConfigFiles() {
    std::string name = (std::filesystem::temp_directory_path() / "redllm-config-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("no folder for temporary files");
    folder_ = name;
  }
  ~ConfigFiles() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  ConfigFiles(const ConfigFiles&) = delete;
  ConfigFiles& operator=(const ConfigFiles&) = delete;

  std::filesystem::path write(const std::string& name, std::string_view text) const {
    std::filesystem::path path = folder_ / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::filesystem::path folder_;
};

/// The message of the ConfigError that the action throws; a failure of the test when it throws none.
template <class Action>
std::string config_error(Action action) {
  try {
    action();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    return error.what();
  }
  ADD_FAILURE() << "no ConfigError was thrown";
  return {};
}

}  // namespace red::test

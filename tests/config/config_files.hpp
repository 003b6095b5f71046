// A folder of small files for one test, gone with it, and the message that an action fails with.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

namespace red::test {

class ConfigFiles {
 public:
  std::filesystem::path write(const std::string& name, std::string_view text) const {
    std::filesystem::path path = folder() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  const std::filesystem::path& folder() const { return folder_.path(); }

 private:
  TemporaryFolder folder_;
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

// What a checkpoint test on several ranks needs: the communicator, and a folder of its own that all ranks see
// and that is gone at the end.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "base/error.hpp"
#include "checkpoint/checkpoint.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::checkpoint::test {

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    const testing::TestInfo& info = *testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(RED_BINARY_DIR) / "tests/checkpoint" /
              (std::string(info.test_suite_name()) + "." + info.name() + ".np" + std::to_string(mpi_.size()));
    if (rank() == 0) {
      std::filesystem::remove_all(folder_);
      std::filesystem::create_directories(folder_);
    }
    barrier();
  }
  ~CheckpointTest() override {
    barrier();
    if (rank() == 0 && !HasFailure()) std::filesystem::remove_all(folder_);
  }

  int rank() const { return mpi_.rank(); }
  int size() const { return mpi_.size(); }
  parallel::Communicator& world() { return mpi_.world(); }
  parallel::NoticeBoard& notices() { return mpi_.channel(); }
  void barrier() {
    parallel::Request request = world().barrier();
    world().wait(request, "test barrier");
  }
  const std::filesystem::path& folder() const { return folder_; }

  /// Names in a folder.
  static std::set<std::string> names_in(const std::filesystem::path& path) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path)) names.insert(entry.path().filename());
    return names;
  }
  static std::string text_of(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  parallel::MpiEnvironment mpi_;
  std::filesystem::path folder_;
};

/// The message of the error of type E that a call throws; otherwise what happened instead.
template <class E, class F>
std::string error_of(const F& call) {
  try {
    call();
  } catch (const E& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another error: ") + error.what();
  }
  return "no error";
}

/// EXPECT_TRUE(has("disk full", "full")): with the whole text on failure.
inline testing::AssertionResult has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "'" << part << "' is not in: " << text;
}

inline Metadata metadata_of(int64_t step) {
  Metadata metadata;
  metadata.step = step;
  metadata.sample_cursor = static_cast<uint64_t>(step) * 8;
  metadata.configuration = "[model]\nname = tiny\n";
  metadata.layout = "data 2 x tensor 1 x (encoder 1 + decoder 1)";
  metadata.tokenizer_digest = "0123abcd";
  metadata.extra = {{"empty", ""}, {"notes", "zweite Zeile: \xc3\xa4\nthird"}};
  return metadata;
}

}  // namespace red::checkpoint::test

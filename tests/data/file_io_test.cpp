// Files that are written whole or not at all, and what stays of those that are not.
#include "data/file_io.hpp"

#include <gtest/gtest.h>

#include <string>

#include "data/test_files.hpp"

namespace red::data {
namespace {

namespace fs = std::filesystem;

class FileIo : public testing::Test {
 protected:
  static std::ptrdiff_t num_open() {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  }
  TempFolder folder_;
};

TEST_F(FileIo, APublicationThatFailsLeavesNothing) {
  const fs::path path = folder_ / "there";
  fs::create_directories(path / "already");
  const std::ptrdiff_t open_before = num_open();
  const std::string text = message_of<IoError>([&] {
    OutputFile file(path);
    file.append("text");
    file.publish();
  });
  EXPECT_EQ(text, "cannot rename to its final name " + path.string() + ".partial: Is a directory (errno 21)");
  EXPECT_FALSE(fs::exists(path.string() + ".partial"));
  EXPECT_EQ(num_open(), open_before);
}

TEST_F(FileIo, WhatIsPublishedIsThere) {
  const fs::path path = folder_ / "file";
  {
    OutputFile file(path);
    file.append("text");
    file.publish();
  }
  EXPECT_EQ(fs::file_size(path), 4U);
  EXPECT_FALSE(fs::exists(path.string() + ".partial"));
}

TEST_F(FileIo, AFolderIsNoFileAndStaysClosed) {
  const std::ptrdiff_t open_before = num_open();
  EXPECT_EQ(message_of<IoError>([&] { InputFile file(folder_.path()); }),
            "cannot read " + folder_.path().string() + ": it is a folder");
  EXPECT_EQ(num_open(), open_before);
}

}  // namespace
}  // namespace red::data

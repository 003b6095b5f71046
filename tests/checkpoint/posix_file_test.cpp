// The system calls: bytes arrive where they belong, and each failure names file and errno.
#include "checkpoint/posix_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/error.hpp"

namespace red::checkpoint {
namespace {

namespace fs = std::filesystem;

class PosixFileTest : public testing::Test {
 protected:
  PosixFileTest() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~PosixFileTest() override { fs::remove_all(folder_); }

  static std::string text_of(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  template <class E, class F>
  static std::string error_of(const F& call) {
    try {
      call();
    } catch (const E& error) {
      return error.what();
    }
    return "no error";
  }

  const fs::path folder_ = fs::temp_directory_path() / ("redllm-posix-" + std::to_string(getpid()));
};

TEST_F(PosixFileTest, WritesAndReads) {
  PosixFile file = PosixFile::create(folder_ / "a");
  file.reserve(8);
  file.write_at(5, "678", 3);
  file.write_at(0, "12345", 5);
  file.begin_sync(0, 8);
  file.sync();
  EXPECT_EQ(file.num_bytes(), 8U);
  file.close();
  EXPECT_EQ(text_of(folder_ / "a"), "12345678");
  PosixFile again = PosixFile::open(folder_ / "a");
  char middle[3] = {};
  again.read_at(3, middle, 3);
  EXPECT_EQ(std::string(middle, 3), "456");
  EXPECT_NE(
      error_of<DataError>([&] { again.read_at(6, middle, 3); }).find("a' ends at byte 8, 1 bytes too early"),
      std::string::npos);
  again.close();
  EXPECT_NE(error_of<IoError>([&] { again.read_at(0, middle, 3); }).find("a': Bad file descriptor (errno 9)"),
            std::string::npos);
}

TEST_F(PosixFileTest, NeverOverwrites) {
  std::ofstream(folder_ / "a") << "mine";
  EXPECT_EQ(error_of<IoError>([&] { PosixFile::create(folder_ / "a"); }),
            "cannot create '" + (folder_ / "a").string() + "': File exists (errno 17)");
  EXPECT_EQ(text_of(folder_ / "a"), "mine");
}

TEST_F(PosixFileTest, AFullDiskIsAnErrorOfReserveAndOfWrite) {
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{1000, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string bytes(3000, 'x');
  std::string reserve_error, write_error;
  {
    const PosixFile file = PosixFile::create(folder_ / "a");
    reserve_error = error_of<IoError>([&] { file.reserve(2000); });
    // The first 1,000 bytes are taken: a short write, then the error.
    write_error = error_of<IoError>([&] { file.write_at(0, bytes.data(), bytes.size()); });
  }
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  const std::string name = (folder_ / "a").string();
  EXPECT_EQ(reserve_error, "cannot reserve 2000 bytes for '" + name + "': File too large (errno 27)");
  EXPECT_EQ(write_error, "cannot write 2000 bytes at 1000 of '" + name + "': File too large (errno 27)");
}

TEST_F(PosixFileTest, ReplacesWholeFiles) {
  std::ofstream(folder_ / "latest.partial") << "left by a killed process";
  for (const char* text : {"first, and longer than the second", "second"}) {
    replace_file(folder_ / "latest", text);
    EXPECT_EQ(text_of(folder_ / "latest"), text);
    EXPECT_FALSE(fs::exists(folder_ / "latest.partial"));
  }
}

TEST_F(PosixFileTest, FoldersThatAreNotThere) {
  const std::string missing = (folder_ / "none").string();
  EXPECT_EQ(error_of<IoError>([&] { sync_folder(missing); }),
            "cannot open folder '" + missing + "': No such file or directory (errno 2)");
  EXPECT_EQ(error_of<IoError>([&] { rename_path(missing, folder_ / "b"); }),
            "cannot rename '" + missing + "' to '" + (folder_ / "b").string() +
                "': No such file or directory (errno 2)");
}

}  // namespace
}  // namespace red::checkpoint

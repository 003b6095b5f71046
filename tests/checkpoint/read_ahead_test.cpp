// What is read ahead of a reader that goes through a file, as the kernel's cache shows it. The kernel is told
// not to read ahead by itself.
#include "checkpoint/read_ahead.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

namespace red::checkpoint {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20, kFileBytes = 16 * kMiB;

class ReadAheadTest : public testing::Test {
 protected:
  void SetUp() override {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    ASSERT_GE(descriptor_, 0);
    const std::vector<char> bytes(kFileBytes, 1);
    ASSERT_EQ(::write(descriptor_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    ASSERT_EQ(::fsync(descriptor_), 0);
    ASSERT_EQ(::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_DONTNEED), 0);
    ASSERT_EQ(::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM), 0);
    if (cached(0, kFileBytes) > 0) GTEST_SKIP() << "this file system keeps its files in memory";
  }
  void TearDown() override {
    ::close(descriptor_);
    std::filesystem::remove(path_);
  }

  void read(std::size_t begin, std::size_t end) {
    std::vector<char> bytes(end - begin);
    ahead_.before(descriptor_, begin, bytes.size());
    ASSERT_EQ(::pread(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(begin)),
              static_cast<ssize_t>(bytes.size()));
  }

  /// Share of these bytes that the kernel has in memory.
  double cached(std::size_t begin, std::size_t end) const {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    void* mapped =
        ::mmap(nullptr, end - begin, PROT_READ, MAP_SHARED, descriptor_, static_cast<off_t>(begin));
    std::vector<unsigned char> pages((end - begin) / page);
    EXPECT_EQ(::mincore(mapped, end - begin, pages.data()), 0);
    ::munmap(mapped, end - begin);
    std::size_t count = 0;
    for (const unsigned char there : pages) count += there & 1U;
    return static_cast<double>(count) / static_cast<double>(pages.size());
  }

  bool is_soon_cached(std::size_t begin, std::size_t end) const {
    for (int i = 0; i < 1000 && cached(begin, end) < 1.0; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return cached(begin, end) == 1.0;
  }

  std::filesystem::path path_ = "read-ahead-" + std::to_string(::getpid());  // on a disk: beside the test
  int descriptor_ = -1;
  ReadAhead ahead_;
};

TEST_F(ReadAheadTest, AsMuchAsWasReadInOneGo) {
  read(0, kMiB);
  EXPECT_TRUE(is_soon_cached(kMiB, 2 * kMiB));
  EXPECT_EQ(cached(2 * kMiB, kFileBytes), 0.0);
  read(kMiB, 2 * kMiB);
  EXPECT_TRUE(is_soon_cached(2 * kMiB, 4 * kMiB));
  EXPECT_EQ(cached(4 * kMiB, kFileBytes), 0.0);
}

TEST_F(ReadAheadTest, AcrossAHeader) {
  read(0, kMiB);
  read(kMiB + 4096, 2 * kMiB);
  EXPECT_TRUE(is_soon_cached(2 * kMiB, 3 * kMiB));
}

TEST_F(ReadAheadTest, NothingBehindAJumpAndBehindShortReads) {
  read(0, kMiB);
  ASSERT_TRUE(is_soon_cached(kMiB, 2 * kMiB));
  read(8 * kMiB, 8 * kMiB + 8192);
  read(8 * kMiB + 8192, 8 * kMiB + 16384);
  read(4 * kMiB, 5 * kMiB);  // asked for behind the others
  ASSERT_TRUE(is_soon_cached(5 * kMiB, 6 * kMiB));
  EXPECT_EQ(cached(9 * kMiB, kFileBytes), 0.0);
}

}  // namespace
}  // namespace red::checkpoint

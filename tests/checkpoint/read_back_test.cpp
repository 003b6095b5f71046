// A file that no longer holds what was written is found out before older checkpoints are deleted for it.
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.hpp"
#include "checkpoint/plain_checkpoint.hpp"
#include "support/temporary_folder.hpp"

namespace red::checkpoint::test {
namespace {

using red::test::TemporaryFolder;

/// Of the byte at `offset`.
void flip_a_bit(const std::filesystem::path& path, std::size_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 4);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
  ASSERT_TRUE(file.good());
}

std::size_t offset_of(const std::vector<float>& values, const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(in), {}};
  return all.find(std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)));
}

/// Writes one matrix; while it is read back, a bit of the file flips. What the failure says; empty: none.
std::string written_and_flipped(bool read_back, bool in_a_tile) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "shard";
  std::vector<float> values(24, 1.5F);
  const Shard shard{kPlainMatrix, 0, 6, 0, 4, values.data(), 4};
  int calls = 0;
  // It is called once while the checksum is taken and once when the matrix is written; the third time is
  // after it was read again, and before what lies between tiles is.
  const int when = in_a_tile ? 2 : 3;
  const auto between_chunks = [&] {
    if (++calls != when) return;
    flip_a_bit(path, in_a_tile ? offset_of(values, path) : 1);
  };
  try {
    static_cast<void>(write_shard_file(path, {7, 56, 0, 1}, {&shard, 1}, between_chunks, {{}, read_back}));
  } catch (const IoError& error) {
    return error.what();
  }
  EXPECT_EQ(calls, read_back ? 3 : 2);
  return "";
}

TEST(ReadBack, FindsAFlippedBitOfATile) {
  EXPECT_NE(written_and_flipped(true, true)
                .find("does not hold what was written: the CRC-32C of "
                      "'parameters/embedding.weight"),
            std::string::npos);
  EXPECT_EQ(written_and_flipped(false, true), "");
}

TEST(ReadBack, FindsAFlippedBitBetweenTiles) {
  EXPECT_NE(written_and_flipped(true, false)
                .find("does not hold what was written: the CRC-32C of what lies "
                      "between its tiles"),
            std::string::npos);
}

}  // namespace
}  // namespace red::checkpoint::test

// A checkpoint of each format as its first version wrote it is kept in the repository for ever: every later
// version reads it. 1.0 has no checksums.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/plain_checkpoint.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

fs::path fixture(const std::string& version) {
  return RED_SOURCE_DIR "/tests/checkpoint/format-" + version;
}

/// How the fixture was made; run it by name, and only for a new format.
TEST(Format, DISABLED_WriteFixture) {
  write_plain_checkpoint(fixture(fmt::format("{}.{}", kFormatMajor, kFormatMinor)));
}

TEST(Format, IsStillTheOneOfTheFixture) {
  const fs::path folder = fs::temp_directory_path() / fmt::format("redllm-format-{}", getpid());
  write_plain_checkpoint(folder);
  for (const char* name : {"index.h5", "index.crc32c", "shard-00000.h5", "shard-00001.h5"}) {
    const auto bytes = [name](const fs::path& of) {
      std::ifstream in(of / name, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(in), {});
    };
    EXPECT_TRUE(bytes(folder) == bytes(fixture("1.1"))) << name;
  }
  fs::remove_all(folder);
}

class FormatOf : public testing::TestWithParam<const char*> {};

TEST_P(FormatOf, IsRead) {
  const Reader reader(fixture(GetParam()));
  EXPECT_EQ(reader.metadata().step, 7);
  EXPECT_EQ(reader.metadata().sample_cursor, 56U);
  EXPECT_EQ(reader.metadata().configuration, plain_metadata().configuration);
  EXPECT_EQ(reader.metadata().layout, plain_metadata().layout);
  EXPECT_EQ(reader.metadata().tokenizer_digest, "00ff");
  EXPECT_EQ(reader.metadata().extra, plain_metadata().extra);
  std::vector<float> matrix(24), vector(5);
  reader.read({kPlainMatrix, 0, 6, 0, 4, matrix.data(), 4});
  EXPECT_EQ(matrix, plain_rows<float>(kPlainMatrix, 0, 6));
  reader.read({kPlainVector, 0, 5, 0, 1, vector.data(), 1});
  EXPECT_EQ(vector, plain_rows<float>(kPlainVector, 0, 5));
  std::vector<double> state(24);
  reader.read({kPlainState, 0, 6, 0, 4, state.data(), 4});
  EXPECT_TRUE(std::isnan(state[4 * kPlainNanRow + 2]));
  EXPECT_EQ(state[23], 5.375);
  EXPECT_EQ(find_damage(fixture(GetParam())), std::vector<std::string>());
}

INSTANTIATE_TEST_SUITE_P(EveryVersion, FormatOf, testing::Values("1.0", "1.1"));

}  // namespace
}  // namespace red::checkpoint::test

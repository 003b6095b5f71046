// A checkpoint of format 1.0 as the first version wrote it is kept in the repository for ever: every later
// version reads it.
#include <gtest/gtest.h>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/plain_checkpoint.hpp"

namespace red::checkpoint::test {
namespace {

const std::filesystem::path kFolder = RED_SOURCE_DIR "/tests/checkpoint/format-1.0";

/// How the fixture was made; run it by name, and only for a new format.
TEST(Format, DISABLED_WriteFixture) {
  write_plain_checkpoint(kFolder);
}

TEST(Format, ReadsVersion10) {
  const Reader reader(kFolder);
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
}

}  // namespace
}  // namespace red::checkpoint::test

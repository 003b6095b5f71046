// What cuDNN's attention is given and gives back: exact, but for the norm that is undone (bf16, rounded
// once).
#include "ops/attention_library_parts.hpp"

#include <gtest/gtest.h>

#include "ops/attention.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"

namespace red::ops {
namespace {

using test::DeviceArray;

const std::vector<int32_t> kQueryOffsets = {0, 3, 4, 300}, kKeyOffsets = {0, 7, 307, 308};
constexpr int64_t kSequences = 3, kQueries = 300, kHeads = 2, kLongest = 384;

TEST(AttentionLibraryParts, LengthsAndStarts) {
  Stream stream(1);
  const DeviceArray<int32_t> q_offsets(kQueryOffsets), k_offsets(kKeyOffsets);
  const DeviceArray<int32_t> lengths(std::vector<int32_t>(2 * kSequences, -1));
  const DeviceArray<int32_t> starts(std::vector<int32_t>(3 * (kSequences + 1), -1));
  RaggedMatrices matrices{{5, 100, 7}, {false, true, true}, 3};
  ragged_sequences(stream, lengths.tensor(2, kSequences), starts.tensor(3, kSequences + 1), q_offsets.data(),
                   k_offsets.data(), matrices);
  EXPECT_EQ(lengths.read(), (std::vector<int32_t>{3, 1, 296, 7, 300, 1}));
  EXPECT_EQ(starts.read(), (std::vector<int32_t>{0, 15, 20, 1500, 0, 700, 30700, 30800, 0, 49, 2149, 2156}));
}

TEST(AttentionLibraryParts, StatisticsThereAndBack) {
  Stream stream(1);
  const DeviceArray<int32_t> offsets(kQueryOffsets);
  const test::Matrix lse = test::random_matrix(kHeads, kQueries, 1);
  const test::FloatTensor ours(lse, 3), back(kHeads, kQueries, 5);
  const test::FloatTensor statistics(kSequences * kHeads, kLongest);
  statistics_from_lse(stream, statistics, ours, offsets.data());
  const test::Matrix theirs = statistics.read();
  for (int64_t b = 0; b < kSequences; ++b) {
    for (int64_t head = 0; head < kHeads; ++head) {
      const int64_t begin = kQueryOffsets[b], length = kQueryOffsets[b + 1] - begin;
      for (int64_t s = 0; s < kLongest; ++s)
        EXPECT_EQ(theirs(b * kHeads + head, s), s < length ? lse(head, begin + s) : 0.0) << b << " " << s;
    }
  }
  lse_from_statistics(stream, back, statistics, offsets.data());
  EXPECT_EQ(back.read().values, lse.values);
  EXPECT_TRUE(back.padding_untouched());
}

TEST(AttentionLibraryParts, UndoesTheHeadNorm) {
  Stream stream(1);
  for (const int64_t scales : {kHeads, int64_t{1}}) {
    const int64_t cols = kHeads * 72;
    const test::Matrix o = test::as_bf16(test::random_matrix(5, cols, 1));
    test::Matrix inv_rms = test::random_matrix(5, scales, 2);
    for (double& x : inv_rms.values) x = static_cast<float>(std::abs(x) + 0.1);
    const test::Bf16Tensor out(5, cols, 8);
    undo_head_norm(stream, out, test::Bf16Tensor(o, 4), test::FloatTensor(inv_rms, 1), kHeads);
    const test::Matrix got = out.read();
    for (int64_t i = 0; i < 5; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const double expected = o(i, j) / inv_rms(i, j / (cols / scales));
        EXPECT_NEAR(got(i, j), expected, std::abs(expected) * 0x1p-8) << i << " " << j;
      }
    }
    EXPECT_TRUE(out.padding_untouched());
  }
}

TEST(AttentionLibraryParts, RefusesWhatDoesNotFit) {
  Stream stream(1);
  const test::FloatTensor lse(kHeads, kQueries), statistics(kSequences * kHeads + 1, kLongest);
  EXPECT_THROW(lse_from_statistics(stream, lse, statistics, nullptr), LogicError);
  const test::Bf16Tensor o(5, 10);
  EXPECT_THROW(undo_head_norm(stream, o, o, test::FloatTensor(5, 3), 3), LogicError);
}

}  // namespace
}  // namespace red::ops

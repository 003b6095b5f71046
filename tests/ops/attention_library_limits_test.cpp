// What is not given to cuDNN's attention, case by case; the matrices are never read.
#include "ops/attention_library_limits.hpp"

#include <gtest/gtest.h>

#include <array>

namespace red::ops {
namespace {

/// An attention that is taken: 2 heads of 64 columns, 300 tokens.
struct Taken {
  std::array<std::byte, 64> memory{};
  Tensor q{aligned(), 300, 128, 384, DType::bf16};
  Tensor keys = q, values = q, o = q;
  AttentionLayout layout{
      .num_sequences = 3, .num_heads = 2, .longest_q = 128, .longest_k = 128, .shortest = 5};
  AttentionMask mask{.causal = true};

  std::byte* aligned() { return memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64; }
  std::string objection() const {
    return not_taken_by_library(std::array<const Tensor*, 8>{&q, &keys, &values, &o}, layout, mask);
  }
  void set_head_dim(int64_t k) {
    for (Tensor* t : {&q, &keys, &values, &o}) t->cols = layout.num_heads * k;
  }
};

TEST(AttentionLibraryLimits, PackedBf16IsTaken) {
  Taken attention;
  EXPECT_EQ(attention.objection(), "");
  attention.mask.causal = false;
  EXPECT_EQ(attention.objection(), "");
  for (const int64_t k : {8, 40, 128}) {
    attention.set_head_dim(k);
    EXPECT_EQ(attention.objection(), "") << k;
  }
}

TEST(AttentionLibraryLimits, OtherTypesAndWidthsAreNot) {
  Taken fp32;
  fp32.q.dtype = DType::fp32;
  EXPECT_EQ(fp32.objection(), "it is given bf16 alone, not fp32");
  Taken other;
  for (const int64_t k : {4, 60, 136}) {
    other.set_head_dim(k);
    EXPECT_EQ(other.objection(),
              "heads have " + std::to_string(k) + " columns, not a multiple of 8 up to 128");
  }
  Taken none;
  none.layout.num_heads = 0;
  EXPECT_EQ(none.objection(), "heads have 0 columns, not a multiple of 8 up to 128");
}

TEST(AttentionLibraryLimits, OtherMasksAndCachesAreNot) {
  const int32_t number = 0;
  Taken cache;
  cache.layout.k_head_rows = 300;
  EXPECT_EQ(cache.objection(), "keys and values are a cache's");
  Taken prefix;
  prefix.mask.prefix = &number;
  EXPECT_EQ(prefix.objection(), "prefixes or documents are masked");
  Taken documents;
  documents.mask.q_documents = documents.mask.k_documents = &number;
  EXPECT_EQ(documents.objection(), "prefixes or documents are masked");
  Taken empty;
  empty.layout.shortest = 0;
  EXPECT_EQ(empty.objection(), "a sequence is empty, or the host does not know its length");
}

// Each matrix is looked at, not the first alone.
TEST(AttentionLibraryLimits, RowsMustBeAlignedAndOffsetsHave32Bits) {
  for (Tensor Taken::*matrix : {&Taken::q, &Taken::keys, &Taken::values, &Taken::o}) {
    Taken stride;
    (stride.*matrix).row_stride = 388;
    EXPECT_EQ(stride.objection(), "rows of a matrix are not aligned to 16 bytes");
    Taken begin;
    (begin.*matrix).data += 8;
    EXPECT_EQ(begin.objection(), "rows of a matrix are not aligned to 16 bytes");
    Taken large;
    (large.*matrix).row_stride = 1024;
    (large.*matrix).rows = (int64_t{1} << 21) - 1;
    EXPECT_EQ(large.objection(), "");
    (large.*matrix).rows = int64_t{1} << 21;
    EXPECT_EQ(large.objection(), "a matrix has more than 2^31 - 1 elements");
  }
}

}  // namespace
}  // namespace red::ops

// Attention of few queries over many keys, packed and in a cache that keeps heads apart.
#include <gtest/gtest.h>

#include <memory>

#include "ops/attention.hpp"
#include "ops/scatter_heads.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"
#include "support/every_cpu_target.hpp"
#include "support/one_result.hpp"
#include "support/reference_attention.hpp"

namespace red::ops {
namespace {

using test::AttentionCase;
using test::AttentionOnDevice;
using test::close;
using test::DeviceArray;
using test::FloatTensor;
using test::for_every_cpu_target;
using test::Matrix;
using test::OwnedTensor;

// fp32 softmax and sums over up to 1,700 keys; values are N(0, 1).
constexpr test::Tolerance kClose = {.absolute = 5e-6, .relative = 5e-6};
constexpr test::Tolerance kCloseBf16 = {.absolute = 5e-6, .relative = test::kBf16Rounding};

/// Ragged keys, none, less than a vector, several blocks of keys; few and many pairs of sequence and head.
std::vector<AttentionCase> few_query_cases() {
  std::vector<AttentionCase> cases;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& q, const std::vector<int64_t>& k,
                       int64_t heads, int64_t head_dim) -> AttentionCase& {
    return cases.emplace_back(test::random_case(name, q, k, heads, head_dim, 200 + cases.size()));
  };
  add("one query, one key", {1}, {1}, 1, 2);
  add("one query each, ragged", {1, 1, 1, 1, 1}, {700, 3, 0, 512, 513}, 2, 40);
  add("one query, long", {1}, {1700}, 1, 128);
  add("many heads", {1, 1, 1}, {37, 1100, 0}, 13, 6);
  add("beside long sequences, and none", {4, 0, 90, 1, 5}, {600, 9, 90, 31, 1025}, 2, 24);
  AttentionCase& causal = add("causal", {4, 2, 1}, {4, 700, 8}, 3, 16);
  causal.causal = true;
  AttentionCase& prefix = add("prefix", {4, 3}, {4, 900}, 2, 8);
  prefix.causal = true;
  prefix.prefix = {2, 3};
  AttentionCase& documents = add("documents with gaps", {4}, {1500}, 2, 16);
  documents.q_documents = {0, 1, 2, 2};  // none of 1; 2 begins within a block
  documents.k_documents = test::documents_of({1500}, 800, 2);
  return cases;
}

/// Keys and values of a case in a cache: sequence s has the place places[s] of `room` keys; the rest is NaN.
template <class T>
struct CachedCase {
  static constexpr int64_t kRoom = 1703;

  explicit CachedCase(const AttentionCase& c)
      : heads(c.heads),
        width(c.q.cols / c.heads),
        places(c.q_offsets.size()),
        keys(nothing()),
        values(nothing()),
        q(c.q, 8),
        o(c.q.rows, c.q.cols, 5),
        lse(c.heads, c.q.rows, 3) {
    Stream stream(2);
    std::vector<int32_t> rows, offsets, lengths;
    for (std::size_t s = 0; s + 1 < c.q_offsets.size(); ++s) {
      const std::size_t place = c.q_offsets.size() - 1 - s;  // another order than the sequences'
      offsets.push_back(static_cast<int32_t>(static_cast<int64_t>(place) * heads * kRoom));
      lengths.push_back(c.k_offsets[s + 1] - c.k_offsets[s]);
      for (int32_t j = 0; j < lengths.back(); ++j) rows.push_back(offsets.back() + j);
    }
    set_places(offsets, lengths);
    const DeviceArray<int32_t> to(rows);
    scatter_heads(stream, keys, OwnedTensor<T>(c.keys, 7), to.data(), heads, kRoom);
    scatter_heads(stream, values, OwnedTensor<T>(c.values, 1), to.data(), heads, kRoom);
    stream.synchronize();  // before its arguments are gone
  }

  void set_places(const std::vector<int32_t>& offsets, const std::vector<int32_t>& lengths) {
    k_offsets = std::make_unique<DeviceArray<int32_t>>(offsets);
    k_lengths = std::make_unique<DeviceArray<int32_t>>(lengths);
  }

  Matrix nothing() const { return {static_cast<int64_t>(places) * heads * kRoom, width, NAN}; }
  AttentionLayout layout(const AttentionOnDevice& where) const {
    AttentionLayout layout = where.layout();
    layout.k_offsets = k_offsets->data();
    layout.k_lengths = k_lengths->data();
    layout.k_head_rows = kRoom;
    return layout;
  }
  void forward(Stream& stream, const AttentionCase& c) const {
    const AttentionOnDevice where(c);
    attention_forward(stream, o, lse, q, keys, values, layout(where), where.mask());
  }

  int64_t heads, width;
  std::size_t places;
  std::unique_ptr<DeviceArray<int32_t>> k_offsets, k_lengths;
  OwnedTensor<T> keys, values, q, o;
  FloatTensor lse;
};

/// Whether it has sequences that are not of few queries.
bool has_long_sequences(const AttentionCase& c) {
  for (std::size_t s = 0; s + 1 < c.q_offsets.size(); ++s) {
    if (c.q_offsets[s + 1] - c.q_offsets[s] > 4) return true;
  }
  return false;
}

template <class T>
void expect_equal_to_float64(const AttentionCase& c, test::Tolerance tolerance) {
  SCOPED_TRACE(c.name);
  // Long sequences have their probabilities rounded where the processor multiplies bf16
  // (attention_bf16_test.cpp says how far off that may be).
  const bool rounds = std::is_same_v<T, bf16> && test::on_cpu() && gemm_library().has_bf16_arithmetic();
  if (rounds && has_long_sequences(c)) tolerance.absolute = 0x1p-7;
  const test::ReferenceAttention expected = reference_attention(c);
  for_every_cpu_target([&] {
    Stream stream(2);
    const OwnedTensor<T> q(c.q, 8), keys(c.keys, 24), values(c.values, 3), o(c.q.rows, c.q.cols, 5);
    const FloatTensor lse(c.heads, c.q.rows, 3);
    const AttentionOnDevice where(c);
    attention_forward(stream, o, lse, q, keys, values, where.layout(), where.mask());
    EXPECT_TRUE(close(o.read(), expected.o, tolerance)) << "o";
    EXPECT_TRUE(close(lse.read(), expected.lse, kClose)) << "lse";
    EXPECT_TRUE(o.padding_untouched() && lse.padding_untouched());
    EXPECT_EQ(stream.scratch().used(), 0U);
    if (!c.k_documents.empty()) return;
    const CachedCase<T> cached(c);
    cached.forward(stream, c);
    EXPECT_EQ(cached.o.read().values, o.read().values);
    EXPECT_EQ(cached.lse.read().values, lse.read().values);
  });
}

TEST(AttentionFewQueries, EqualsFloat64PackedAndCached) {
  for (const AttentionCase& c : few_query_cases()) expect_equal_to_float64<float>(c, kClose);
}

TEST(AttentionFewQueries, Bf16EqualsFloat64OfTheRoundedArguments) {
  for (const AttentionCase& c : few_query_cases()) expect_equal_to_float64<bf16>(as_bf16(c), kCloseBf16);
}

/// A query is the same alone or beside others that change how the work is split.
TEST(AttentionFewQueries, OtherSequencesDoNotChangeABit) {
  const AttentionCase alone = test::random_case("alone", {1}, {1400}, 3, 16, 300);
  AttentionCase beside =
      test::random_case("beside", std::vector<int64_t>(12, 1), std::vector<int64_t>(12, 1400), 3, 16, 301);
  for (int64_t j = 0; j < alone.q.cols; ++j) beside.q(0, j) = alone.q(0, j);
  for (int64_t i = 0; i < 1400; ++i) {
    for (int64_t j = 0; j < alone.q.cols; ++j) {
      beside.keys(i, j) = alone.keys(i, j);
      beside.values(i, j) = alone.values(i, j);
    }
  }
  for_every_cpu_target([&] {
    Stream stream(2);
    const CachedCase<float> one(alone), many(beside);
    one.forward(stream, alone);
    many.forward(stream, beside);
    const Matrix of_one = one.o.read(), of_many = many.o.read();
    for (int64_t j = 0; j < of_one.cols; ++j) EXPECT_EQ(of_one(0, j), of_many(0, j));
  });
}

TEST(AttentionFewQueries, ThreadsDoNotChangeABit) {
  for (const AttentionCase& c : few_query_cases()) {
    SCOPED_TRACE(c.name);
    const CachedCase<float> cached(c);
    if (!c.k_documents.empty()) continue;
    test::expect_one_result([&](Stream& stream) {
      cached.forward(stream, c);
      return std::vector{cached.o.elements(), cached.lse.elements()};
    });
  }
}

TEST(AttentionFewQueries, ScratchMemoryIsAsPlanned) {
  for (const AttentionCase& c : few_query_cases()) {
    if (!c.k_documents.empty()) continue;
    SCOPED_TRACE(c.name);
    const CachedCase<float> cached(c);
    const std::size_t planned =
        attention_scratch_bytes(2, c.heads, c.q.cols / c.heads, static_cast<int64_t>(c.q_offsets.size()) - 1,
                                1700, DType::fp32, c.q.rows);
    Stream stream(2, planned);
    cached.forward(stream, c);
    EXPECT_LE(stream.scratch().peak(), planned);
  }
}

TEST(AttentionFewQueries, RefusesKeysOutsideTheCache) {
  Stream stream(1);
  const AttentionCase c = few_query_cases()[1];
  const auto expect_refusal = [&](auto change) {
    CachedCase<float> cached(c);
    const AttentionOnDevice where(c);
    AttentionLayout layout = cached.layout(where);
    AttentionMask mask = where.mask();
    change(cached, layout, mask);
    EXPECT_THROW(
        attention_forward(stream, cached.o, cached.lse, cached.q, cached.keys, cached.values, layout, mask),
        LogicError);
  };
  if (test::on_cpu()) {
    expect_refusal([](auto& cached, auto&, auto&) { cached.k_lengths->data()[0] = cached.kRoom + 1; });
    expect_refusal([](auto& cached, auto&, auto&) { cached.k_lengths->data()[1] = -1; });
    expect_refusal([](auto& cached, auto&, auto&) { cached.k_offsets->data()[0] += 1 << 20; });
  }
  expect_refusal([](auto&, auto& layout, auto&) { layout.k_lengths = nullptr; });
  expect_refusal([](auto&, auto& layout, auto&) { layout.k_head_rows = 0; });
  const DeviceArray<int32_t> documents(std::vector<int32_t>(static_cast<std::size_t>(c.keys.rows), 0));
  expect_refusal([&](auto&, auto&, auto& mask) { mask.q_documents = mask.k_documents = documents.data(); });
}

TEST(ScatterHeads, WritesItsRowsAndNoOthers) {
  Stream stream(2);
  // Two heads of three: token 0 to row 4, token 1 to row 1; heads five rows apart.
  const FloatTensor cache(Matrix(10, 3, 7.0), 2), x(Matrix(2, 6, {1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6}));
  const DeviceArray<int32_t> rows({4, 1}), beyond({4, 5}), negative({-1, 1}), first({0, 1});
  scatter_heads(stream, cache, x, rows.data(), 2, 5);
  Matrix expected(10, 3, 7.0);
  for (int64_t j = 0; j < 3; ++j) {
    const auto value = static_cast<double>(j + 1);
    expected(4, j) = value;
    expected(9, j) = value + 3;
    expected(1, j) = -value;
    expected(6, j) = -value - 3;
  }
  EXPECT_TRUE(close(cache.read(), expected, {}));
  EXPECT_TRUE(cache.padding_untouched());
  EXPECT_THROW(scatter_heads(stream, cache, x, first.data(), 3, 2), LogicError);
  if (test::on_cpu()) {
    EXPECT_THROW(scatter_heads(stream, cache, x, beyond.data(), 2, 5), LogicError);
    EXPECT_THROW(scatter_heads(stream, cache, x, negative.data(), 2, 5), LogicError);
    return;
  }
  // A GPU passes over rows outside: token 1 has none here, and token 0 lies where it lay.
  scatter_heads(stream, cache, x, beyond.data(), 2, 5);
  EXPECT_TRUE(close(cache.read(), expected, {}));
}

}  // namespace
}  // namespace red::ops

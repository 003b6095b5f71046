// Pairs as samples, for both models, by hand and in the mixture.
#include "data/pair_source.hpp"

#include <gtest/gtest.h>

#include <set>

#include "base/philox.hpp"
#include "data/source_provider.hpp"
#include "data/test_files.hpp"
#include "support/count_allocations.hpp"

namespace red::data {
namespace {

using Ints = std::vector<int32_t>;
using Mask = std::vector<uint8_t>;
constexpr int32_t kBos = 1, kEos = 2, kEod = 4;
const SpecialIds kIds{.pad = 0, .bos = kBos, .eos = kEos, .eod = kEod, .vocabulary_size = 1000};

struct Pair {
  Ints inputs, targets;
};

void write_pairs(const std::filesystem::path& prefix, const std::vector<Pair>& pairs) {
  TokenFileWriter writer(prefix, TokenType::u16);
  for (const Pair& pair : pairs) {
    writer.append(pair.inputs);
    writer.end_sequence();
    writer.append(pair.targets);
    writer.append(std::span(&kEod, 1));
    writer.end_document();
  }
  writer.finish();
}

class Pairs : public testing::Test {
 protected:
  std::unique_ptr<PairSource> open(const std::vector<Pair>& pairs, const PairShape& shape) {
    write_pairs(folder_ / "f", pairs);
    return open_pairs("f", folder_ / "f", kIds, shape);
  }
  Sample cut(const std::vector<Pair>& pairs, const PairShape& shape, int64_t pair = 0) {
    Sample sample;
    open(pairs, shape)->cut(pair, sample);
    return sample;
  }
  TempFolder folder_;
};

const std::vector<Pair> kTwo = {{{10, 11, 12}, {20, 21}}, {{30}, {40, 41, 42, 43}}};

TEST_F(Pairs, RedLlmReadsInputsAndPredictsTargets) {
  const Sample sample = cut(kTwo, {}, 1);
  EXPECT_EQ(sample.source_item, 1U);
  EXPECT_EQ(sample.encoder_input, (Ints{30, kEos}));
  EXPECT_EQ(sample.decoder_input, (Ints{kBos, 40, 41, 42, 43}));
  EXPECT_EQ(sample.decoder_target, (Ints{40, 41, 42, 43, kEos}));
  EXPECT_EQ(sample.loss_mask, (Mask{1, 1, 1, 1, 1}));
  EXPECT_EQ(sample.prefix, 0);
  EXPECT_TRUE(sample.encoder_document.empty());
}

TEST_F(Pairs, DecLlmHasTheLossOnTargetsAlone) {
  PairShape shape{.has_encoder = false};
  Sample sample = cut(kTwo, shape);
  EXPECT_TRUE(sample.encoder_input.empty());
  EXPECT_EQ(sample.decoder_input, (Ints{kBos, 10, 11, 12, kEos, 20, 21}));
  EXPECT_EQ(sample.decoder_target, (Ints{10, 11, 12, kEos, 20, 21, kEos}));
  // The position of the inputs' </s> predicts the first target.
  EXPECT_EQ(sample.loss_mask, (Mask{0, 0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(sample.prefix, 0);
  shape.bidirectional = true;
  sample = cut(kTwo, shape);
  EXPECT_EQ(sample.prefix, 5);  // start slot, three inputs, </s>
  EXPECT_EQ(sample.loss_mask, (Mask{0, 0, 0, 0, 1, 1, 1}));
  shape.end_input = false;
  sample = cut(kTwo, shape);
  EXPECT_EQ(sample.prefix, 4);
  EXPECT_EQ(sample.decoder_target, (Ints{10, 11, 12, 20, 21, kEos}));
  EXPECT_EQ(sample.loss_mask, (Mask{0, 0, 0, 1, 1, 1}));
}

TEST_F(Pairs, LongOnesLoseTheirEndsButNotTheClosingSymbol) {
  PairShape shape{.input_length = 3, .target_length = 3};
  Sample sample = cut(kTwo, shape);
  EXPECT_EQ(sample.encoder_input, (Ints{10, 11, kEos}));
  EXPECT_EQ(sample.decoder_target, (Ints{20, 21, kEos}));
  sample = cut(kTwo, shape, 1);
  EXPECT_EQ(sample.encoder_input, (Ints{30, kEos}));
  EXPECT_EQ(sample.decoder_target, (Ints{40, 41, kEos}));
  EXPECT_EQ(open(kTwo, shape)->describe(), "2 pairs, 1 inputs cut to 3, 1 targets cut to 3");
  shape.end_input = false;
  EXPECT_EQ(cut(kTwo, shape).encoder_input, (Ints{10, 11, 12}));
  shape.has_encoder = false;
  sample = cut(kTwo, shape, 1);
  EXPECT_EQ(sample.decoder_target, (Ints{30, 40, 41, kEos}));
  EXPECT_EQ(shape.lengths().decoder, 6);
  EXPECT_EQ(shape.lengths().encoder, 0);
}

TEST_F(Pairs, EmptyInputsAndTargets) {
  const std::vector<Pair> empty = {{{}, {20}}, {{10}, {}}};
  Sample sample = cut(empty, {});
  EXPECT_EQ(sample.encoder_input, (Ints{kEos}));
  EXPECT_EQ(sample.decoder_target, (Ints{20, kEos}));
  // Files by others may have them: the end is all there is to predict.
  EXPECT_EQ(cut(empty, {}, 1).decoder_target, (Ints{kEos}));
  const PairShape bare{.end_input = false};
  EXPECT_EQ(message_of<DataError>([&] { cut(empty, bare); }),
            (folder_ / "f.bin").string() +
                ": pair 0 has empty inputs, and with data.end_input = no its encoder would see nothing; set "
                "data.end_input = yes, or leave the pair out");
  const PairShape dec{.has_encoder = false, .bidirectional = true, .end_input = false};
  sample = cut(empty, dec);
  EXPECT_EQ(sample.decoder_input, (Ints{kBos, 20}));
  EXPECT_EQ(sample.prefix, 1);
  EXPECT_EQ(sample.loss_mask, (Mask{1, 1}));
}

TEST_F(Pairs, OtherFilesAreRefused) {
  write_tokens(folder_ / "text", {{10, 11, kEod}, {12, kEod}});
  EXPECT_EQ(
      message_of<DataError>([&] { open_pairs("x", folder_ / "text", kIds, {}); }),
      (folder_ / "text.idx").string() +
          ": document 0 has 1 sequences, a pair has two, inputs and targets; build it with `redllm data "
          "build --pairs`, or set data.samples = windows");
  EXPECT_NE(message_of<DataError>([&] {
              cut({{{10, 1000}, {11}}}, {});
            }).find("f.bin: token 1 (in document 0) is 1000, outside the vocabulary of 1000"),
            std::string::npos);
  DataConfig config;
  config.samples = SampleKind::pairs;
  config.document_mask = true;
  EXPECT_NE(message_of<ConfigError>([&] { pair_shape(config, true); }).find("data.document_mask = yes:"),
            std::string::npos);
  config.document_mask = false;
  config.missing_eod = MissingEod::add;
  EXPECT_NE(message_of<ConfigError>([&] { pair_shape(config, true); }).find("data.missing_eod = add:"),
            std::string::npos);
}

/// Pairs whose tokens say which pair they are of.
std::vector<Pair> numbered(int32_t count) {
  std::vector<Pair> pairs;
  for (int32_t i = 0; i < count; ++i) {
    const PhiloxBlock dice = philox(3, static_cast<uint64_t>(i));
    pairs.push_back({Ints(1 + dice[0] % 30, 10 + i), Ints(1 + dice[1] % 9, 500 + i)});
  }
  return pairs;
}

DataConfig two_sources(const TempFolder& folder) {
  DataConfig config;
  config.samples = SampleKind::pairs;
  config.input_length = 20;
  config.target_length = 6;
  config.block = 16;
  write_pairs(folder / "a", numbered(37));
  write_pairs(folder / "b", numbered(11));
  config.sources = {{"a", folder / "a", {}, 2.5}, {"b", folder / "b", {}, 1.0}};
  return config;
}

TEST_F(Pairs, EachPairOncePerEpochOfItsSource) {
  const DataConfig config = two_sources(folder_);
  const auto provider = make_training_provider(config, kIds, true);
  EXPECT_EQ(provider->max_encoder_length(), 20);
  EXPECT_EQ(provider->max_decoder_length(), 6);
  std::vector<std::vector<uint64_t>> pairs(2);
  Sample sample;
  for (uint64_t i = 0; i < 800; ++i) {
    provider->get(i, sample);
    pairs[static_cast<std::size_t>(sample.source)].push_back(sample.source_item);
    EXPECT_EQ(sample.encoder_input.front(), 10 + static_cast<int32_t>(sample.source_item));
    EXPECT_EQ(sample.decoder_target.front(), 500 + static_cast<int32_t>(sample.source_item));
    EXPECT_LE(sample.encoder_input.size(), 20U);
    EXPECT_LE(sample.decoder_target.size(), 6U);
  }
  for (const auto& [source, count] : {std::pair<std::size_t, std::size_t>{0, 37}, {1, 11}}) {
    EXPECT_EQ(static_cast<int64_t>(pairs[source].size()), 50 * provider->mixture().quotas()[source]);
    for (std::size_t first = 0; first + count <= pairs[source].size(); first += count) {
      const auto begin = pairs[source].begin() + static_cast<std::ptrdiff_t>(first);
      EXPECT_EQ(std::set<uint64_t>(begin, begin + static_cast<std::ptrdiff_t>(count)).size(), count);
    }
  }
  // Any sample again, without those before.
  Sample again;
  make_training_provider(config, kIds, true)->get(799, again);
  EXPECT_EQ(again.encoder_input, sample.encoder_input);
  EXPECT_EQ(again.decoder_target, sample.decoder_target);
}

TEST_F(Pairs, GetAllocatesNothingAfterTheLongest) {
  const DataConfig config = two_sources(folder_);
  for (const bool has_encoder : {true, false}) {
    const auto provider = make_training_provider(config, kIds, has_encoder);
    Sample sample;
    for (uint64_t i = 0; i < 200; ++i) provider->get(i, sample);
    const int64_t before = test::num_allocations();
    for (uint64_t i = 0; i < 500; ++i) provider->get(i * 7919, sample);
    EXPECT_EQ(test::num_allocations(), before);
  }
}

TEST_F(Pairs, AreEvaluatedAsTheyLie) {
  DataConfig config = two_sources(folder_);
  const auto provider = make_evaluation_provider(config, "b", folder_ / "b", kIds, false);
  ASSERT_EQ(provider->num_samples(), 11);
  Sample sample;
  for (uint64_t i = 0; i < 11; ++i) {
    provider->get(i, sample);
    EXPECT_EQ(sample.decoder_target.front(), 10 + static_cast<int32_t>(i));
  }
  EXPECT_EQ(num_late_targets(config), 6);
  EXPECT_EQ(provider->max_decoder_length(), 26);
}

}  // namespace
}  // namespace red::data

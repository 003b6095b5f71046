#include "data/source_provider.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/philox.hpp"
#include "data/sample_digest.hpp"
#include "data/test_files.hpp"
#include "data/window_source.hpp"
#include "support/count_allocations.hpp"

namespace red::data {
namespace {

using Ints = std::vector<int32_t>;
constexpr int32_t kBos = 1, kEod = 4;
const SpecialIds kIds{.pad = 0, .bos = kBos, .eos = 2, .eod = kEod, .vocabulary_size = 1000};

class Windows : public testing::Test {
 protected:
  std::unique_ptr<FixedProvider> fixed(const Documents& documents, const WindowShape& shape,
                                       MissingEod missing = MissingEod::refuse) {
    write_tokens(folder_ / "f", documents);
    DataConfig config;
    config.missing_eod = missing;
    return std::make_unique<FixedProvider>(open_windows(config, "f", folder_ / "f", kIds, shape),
                                           shape.lengths());
  }
  /// `count` documents of about `mean` tokens whose tokens say where they lie: 10 + position % 990.
  Documents numbered(int64_t count, uint32_t mean, uint64_t seed) const {
    Documents documents;
    int32_t position = 0;
    for (int64_t d = 0; d < count; ++d) {
      auto& document = documents.emplace_back();
      const uint32_t length = 1 + philox(seed, static_cast<uint64_t>(d))[0] % (2 * mean);
      for (uint32_t i = 0; i + 1 < length; ++i) document.push_back(10 + (position++ % 990));
      document.push_back(kEod);
      ++position;
    }
    return documents;
  }
  DataConfig three_sources(int64_t window) const {
    DataConfig config;
    config.window = window;
    config.block = 10;
    const std::vector<std::pair<const char*, double>> shares = {{"a", 5}, {"b", 3}, {"c", 2}};
    for (const auto& [name, weight] : shares) {
      write_tokens(folder_ / name, numbered(30 + 7 * static_cast<int64_t>(weight), 20, hash_name(name)));
      config.sources.push_back({name, folder_ / name, {}, weight});
    }
    return config;
  }
  TempFolder folder_;
};

WindowShape shape_of(Objective objective, int64_t window, int64_t input, bool documents = false) {
  return {.objective = objective, .window = window, .input = input, .document_mask = documents};
}

const Documents kTwo = {{10, 11, 12, kEod}, {20, kEod}, {30, 31, 32, 33, 34, kEod}};

TEST_F(Windows, PrefixLmByHand) {
  const auto provider = fixed(kTwo, shape_of(Objective::prefix_lm, 4, 2));
  EXPECT_EQ(provider->num_samples(), 3);
  EXPECT_EQ(provider->max_encoder_length(), 2);
  EXPECT_EQ(provider->max_decoder_length(), 2);
  EXPECT_EQ(provider->source_names(), std::vector<std::string>{"f"});
  Sample sample;
  provider->get(0, sample);
  EXPECT_EQ(sample.encoder_input, (Ints{10, 11}));
  EXPECT_EQ(sample.decoder_target, (Ints{12, kEod}));
  EXPECT_EQ(sample.decoder_input, (Ints{kBos, 12}));
  EXPECT_EQ(sample.loss_mask, (std::vector<uint8_t>{1, 1}));
  EXPECT_EQ(sample.prefix, 0);
  EXPECT_TRUE(sample.encoder_document.empty());
  provider->get(1, sample);
  EXPECT_EQ(sample.encoder_input, (Ints{20, kEod}));
  EXPECT_EQ(sample.decoder_target, (Ints{30, 31}));
  EXPECT_EQ(sample.id, 1U);
  EXPECT_EQ(sample.source_item, 1U);
}

TEST_F(Windows, CausalLmByHand) {
  const auto provider = fixed(kTwo, shape_of(Objective::causal_lm, 5, 2));
  EXPECT_EQ(provider->num_samples(), 2);  // two tokens of tail
  EXPECT_EQ(provider->max_encoder_length(), 0);
  Sample sample;
  provider->get(1, sample);
  EXPECT_TRUE(sample.encoder_input.empty());
  EXPECT_EQ(sample.decoder_target, (Ints{kEod, 30, 31, 32, 33}));
  EXPECT_EQ(sample.decoder_input, (Ints{kBos, kEod, 30, 31, 32}));
  EXPECT_EQ(sample.loss_mask, (std::vector<uint8_t>{1, 1, 1, 1, 1}));
}

TEST_F(Windows, BidirectionalInputCountsTheStartSlot) {
  const auto provider = fixed(kTwo, shape_of(Objective::causal_lm_bidirectional, 6, 3));
  Sample sample;
  provider->get(0, sample);
  EXPECT_EQ(sample.decoder_input, (Ints{kBos, 10, 11, 12, kEod, 20}));
  EXPECT_EQ(sample.prefix, 4);  // start slot and three input tokens
  // Position prefix - 1 = 3 predicts the first token that is not input.
  EXPECT_EQ(sample.loss_mask, (std::vector<uint8_t>{0, 0, 0, 1, 1, 1}));
  EXPECT_EQ(sample.decoder_target[3], kEod);
}

TEST_F(Windows, DocumentsAreThoseOfTheTargets) {
  auto provider = fixed(kTwo, shape_of(Objective::prefix_lm, 6, 3, true));
  Sample sample;
  provider->get(0, sample);  // 10 11 12 | eod 20 eod
  EXPECT_EQ(sample.encoder_document, (Ints{0, 0, 0}));
  EXPECT_EQ(sample.decoder_document, (Ints{0, 1, 1}));
  provider->get(1, sample);  // 30 31 32 | 33 34 eod, counted from the window's own first document
  EXPECT_EQ(sample.encoder_document, (Ints{0, 0, 0}));
  EXPECT_EQ(sample.decoder_document, (Ints{0, 0, 0}));

  provider = fixed(kTwo, shape_of(Objective::causal_lm, 6, 3, true));
  provider->get(0, sample);
  EXPECT_EQ(sample.decoder_document, (Ints{0, 0, 0, 0, 1, 1}));
  // The query at the previous [EOD] predicts the next document's first token, and belongs to it.
  EXPECT_EQ(sample.decoder_input[4], kEod);
  EXPECT_EQ(sample.decoder_target[4], 20);
}

TEST_F(Windows, MissingEodIsRefusedOrAdded) {
  const Documents bare = {{10, 11, 12}, {20}, {}, {30, 31, 32, 33, 34}};
  const auto shape = shape_of(Objective::causal_lm, 13, 2, true);
  EXPECT_NE(
      message_of<DataError>([&] { fixed(bare, shape); }).find("its documents do not end with [EOD] (id 4)"),
      std::string::npos);
  const auto provider = fixed(bare, shape, MissingEod::add);
  ASSERT_EQ(provider->num_samples(), 1);
  Sample sample;
  provider->get(0, sample);
  EXPECT_EQ(sample.decoder_target, (Ints{10, 11, 12, kEod, 20, kEod, kEod, 30, 31, 32, 33, 34, kEod}));
  EXPECT_EQ(sample.decoder_document, (Ints{0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 3, 3}));
  // Every window of every length, against the whole stream.
  const Ints whole = sample.decoder_target, documents = sample.decoder_document;
  for (int64_t window = 1; window <= 12; ++window) {
    const auto part = fixed(bare, shape_of(Objective::causal_lm, window, 0, true), MissingEod::add);
    for (int64_t i = 0; i < part->num_samples(); ++i) {
      part->get(static_cast<uint64_t>(i), sample);
      for (int64_t t = 0; t < window; ++t) {
        const auto at = static_cast<std::size_t>(i * window + t),
                   first = static_cast<std::size_t>(i * window);
        ASSERT_EQ(sample.decoder_target[static_cast<std::size_t>(t)], whole[at]);
        ASSERT_EQ(sample.decoder_document[static_cast<std::size_t>(t)], documents[at] - documents[first]);
      }
    }
  }
  // Files that have [EOD] are read as they are, whatever the reader is told.
  fixed(kTwo, shape_of(Objective::causal_lm, 4, 2), MissingEod::add)->get(0, sample);
  EXPECT_EQ(sample.decoder_target, (Ints{10, 11, 12, kEod}));
}

TEST_F(Windows, MixedEndingsAreRefused) {
  const Documents mixed = {{10, kEod}, {20}, {30, kEod}};
  EXPECT_NE(message_of<DataError>([&] {
              fixed(mixed, shape_of(Objective::causal_lm, 2, 1), MissingEod::add);
            }).find("2 of 3 documents looked at end with [EOD] (id 4), document 1 does not"),
            std::string::npos);
  // Too many documents to look at each when opened: found when read.
  Documents many(10000, Ints{10, kEod});
  many[5001] = {10, 11};
  const auto provider = fixed(many, shape_of(Objective::causal_lm, 2, 1));
  Sample sample;
  provider->get(5000, sample);
  EXPECT_NE(message_of<DataError>([&] {
              provider->get(5001, sample);
            }).find("document 5001 does not end with [EOD] (id 4), as others of the file do"),
            std::string::npos);
  many.assign(10000, Ints{10, 11});
  many[5001] = {10, kEod};
  const auto adding = fixed(many, shape_of(Objective::causal_lm, 3, 1), MissingEod::add);
  EXPECT_NE(message_of<DataError>([&] {
              adding->get(5001, sample);
            }).find("document 5001 ends with [EOD] (id 4) of its own"),
            std::string::npos);
}

TEST_F(Windows, IdsOutsideTheVocabularyNameFileAndPosition) {
  const auto provider = fixed({{10, 11, kEod}, {12, 1000, kEod}}, shape_of(Objective::causal_lm, 3, 1));
  Sample sample;
  provider->get(0, sample);
  const std::string text = message_of<DataError>([&] { provider->get(1, sample); });
  EXPECT_NE(text.find("f.bin: token 4 (in document 1) is 1000, outside the vocabulary of 1000"),
            std::string::npos)
      << text;
}

TEST_F(Windows, TooShortAndOddWindows) {
  EXPECT_NE(message_of<DataError>([&] {
              fixed(kTwo, shape_of(Objective::causal_lm, 13, 1));
            }).find("12 tokens are less than one window of 13"),
            std::string::npos);
  DataConfig config;
  config.window = 7;
  EXPECT_EQ(message_of<ConfigError>([&] { window_shape(config, true); }),
            "data.window = 7: it must be even and at least 2, half is input, half is target");
  config.window = 8;
  EXPECT_EQ(window_shape(config, true).encoder_length(), 4);
  EXPECT_EQ(window_shape(config, false).objective, Objective::causal_lm);
  config.bidirectional_input = true;
  EXPECT_EQ(window_shape(config, false).objective, Objective::causal_lm_bidirectional);
  EXPECT_EQ(window_shape(config, false).decoder_length(), 8);
}

/// The windows of each source in the order in which samples come: one after another, whatever the block.
std::vector<std::vector<uint64_t>> windows_by_source(const MixtureProvider& provider, uint64_t num_samples) {
  std::vector<std::vector<uint64_t>> windows(provider.sources().size());
  Sample sample;
  for (uint64_t i = 0; i < num_samples; ++i) {
    provider.get(i, sample);
    EXPECT_EQ(sample.id, i);
    windows[static_cast<std::size_t>(sample.source)].push_back(sample.source_item);
  }
  return windows;
}

/// Each run of num_windows windows has each window once. Returns the number of whole epochs.
std::size_t check_epochs(const std::vector<uint64_t>& windows, std::size_t num_windows) {
  std::vector<uint64_t> before;
  for (std::size_t first = 0; first + num_windows <= windows.size(); first += num_windows) {
    const auto begin = windows.begin() + static_cast<std::ptrdiff_t>(first);
    const std::vector<uint64_t> epoch(begin, begin + static_cast<std::ptrdiff_t>(num_windows));
    const std::set<uint64_t> distinct(epoch.begin(), epoch.end());
    EXPECT_EQ(distinct.size(), num_windows) << "from draw " << first;
    EXPECT_LT(*distinct.rbegin(), num_windows);
    if (num_windows > 4) {
      EXPECT_NE(epoch, before) << "the epoch from draw " << first << " has the order of the one before";
    }
    before = epoch;
  }
  return windows.size() / num_windows;
}

TEST_F(Windows, EachWindowOncePerEpochInTheOrderOfSamples) {
  // Blocks in which epochs end in the middle, several of them for the smallest source, and blocks inside one.
  for (const int64_t block : {10, 97, 1024, 5000}) {
    SCOPED_TRACE(block);
    DataConfig config = three_sources(8);
    config.block = block;
    config.sources[0].weight = 7.3;
    config.sources[1].weight = 1.9;
    config.sources[2].weight = 0.8;
    const auto provider = make_training_provider(config, kIds, true);
    const auto windows = windows_by_source(*provider, 20000 / static_cast<uint64_t>(block) * block);
    for (std::size_t s = 0; s < windows.size(); ++s) {
      SCOPED_TRACE(provider->sources()[s]->name());
      const auto num_windows = static_cast<std::size_t>(provider->sources()[s]->num_items());
      EXPECT_GE(check_epochs(windows[s], num_windows), 3U);
      EXPECT_EQ(static_cast<int64_t>(windows[s].size()), 20000 / block * provider->mixture().quotas()[s]);
    }
  }
}

TEST_F(Windows, NoWindowTwiceInABlockWhereAnEpochEnds) {
  // One source of 288 windows under blocks of 1,024 samples.
  Documents documents(1, Ints(288 * 8, 10));
  documents[0].back() = kEod;
  write_tokens(folder_ / "one", documents);
  DataConfig config;
  config.window = 8;
  config.sources = {{"one", folder_ / "one", {}, 1.0}};
  const auto windows = windows_by_source(*make_training_provider(config, kIds, true), 50 * 288);
  EXPECT_EQ(check_epochs(windows[0], 288), 50U);
}

TEST_F(Windows, SamplesDependOnSeedAndIndexAlone) {
  DataConfig config = three_sources(8);
  const auto one = make_training_provider(config, kIds, true),
             other = make_training_provider(config, kIds, true);
  // Four "ranks" that ask in their own order see what one rank sees; the digest of a step only adds up.
  constexpr uint64_t step = 40;
  uint64_t digest = 0;
  std::vector<Sample> samples(step);
  for (uint64_t i = 0; i < step; ++i) {
    one->get(1000 + i, samples[i]);
    digest += sample_hash(samples[i]);
  }
  std::array<int32_t, 4> lanes{};
  for (uint64_t rank = 0; rank < 4; ++rank) {
    uint64_t part = 0;
    for (uint64_t i = step - 4 + rank; i < step; i -= 4) {  // backwards, until it wraps below 0
      Sample sample;
      other->get(1000 + i, sample);
      EXPECT_EQ(sample.encoder_input, samples[i].encoder_input);
      EXPECT_EQ(sample.decoder_target, samples[i].decoder_target);
      part += sample_hash(sample);
    }
    const auto rank_lanes = digest_lanes(part);
    for (std::size_t lane = 0; lane < 4; ++lane) lanes[lane] += rank_lanes[lane];
  }
  EXPECT_EQ(digest_from_lanes(lanes), digest);
  MicroBatch batch;
  pack(samples, DecoderPositions::after_encoder, batch);
  EXPECT_EQ(batch.digest, digest);
  // Another sample, another seed, another source: another digest.
  Sample sample = samples[0];
  ++sample.source_item;
  EXPECT_NE(sample_hash(sample), sample_hash(samples[0]));
  ++config.seed;
  make_training_provider(config, kIds, true)->get(1000, sample);
  EXPECT_NE(sample.encoder_input, samples[0].encoder_input);
}

TEST_F(Windows, AddingASourceLeavesTheOthersOrder) {
  DataConfig config = three_sources(8);
  const auto windows_of = [&](const std::string& name) {
    const auto provider = make_training_provider(config, kIds, false);
    std::map<uint64_t, uint64_t> items;  // ordinal -> window
    Sample sample;
    for (uint64_t i = 0; i < 200; ++i) {
      provider->get(i, sample);
      const auto draw = provider->mixture().draw(i);
      if (provider->source_names()[static_cast<std::size_t>(draw.source)] == name)
        items[draw.ordinal] = sample.source_item;
    }
    return items;
  };
  const auto before = windows_of("b");
  config.sources.erase(config.sources.begin());
  for (const auto& [ordinal, window] : windows_of("b")) {
    if (before.contains(ordinal)) {
      EXPECT_EQ(before.at(ordinal), window);
    }
  }
}

TEST_F(Windows, GetAllocatesNothingAfterTheFirst) {
  DataConfig config = three_sources(16);
  config.document_mask = true;
  for (const bool has_encoder : {true, false}) {
    const auto provider = make_training_provider(config, kIds, has_encoder);
    Sample sample;
    provider->get(0, sample);
    const int64_t before = test::num_allocations();
    for (uint64_t i = 0; i < 500; ++i) provider->get(i * 7919, sample);
    EXPECT_EQ(test::num_allocations(), before);
  }
}

TEST_F(Windows, DescribesItsSources) {
  write_tokens(folder_ / "f", kTwo);
  DataConfig config;
  config.window = 4;
  config.block = 8;
  config.sources = {{"f", folder_ / "f", {}, 1.0}};
  EXPECT_EQ(make_training_provider(config, kIds, true)->describe(),
            (std::vector<std::string>{
                "source f: 3 documents, 12 tokens, 3 windows of 4, tail of 0 tokens dropped, share "
                "100.00 % (8 of 8)"}));
}

}  // namespace
}  // namespace red::data

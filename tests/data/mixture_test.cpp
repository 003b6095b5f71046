#include "data/mixture.hpp"

#include <gtest/gtest.h>

#include <set>

#include "data/keyed_permutation.hpp"
#include "data/test_files.hpp"

namespace red::data {
namespace {

TEST(KeyedPermutation, EachElementOnceForEverySmallSize) {
  for (uint64_t size = 1; size <= 600; ++size) {
    const KeyedPermutation permutation(size, 7, size % 3);
    std::vector<bool> seen(size);
    for (uint64_t i = 0; i < size; ++i) {
      const uint64_t image = permutation(i);
      ASSERT_LT(image, size);
      ASSERT_FALSE(seen[image]) << "size " << size;
      seen[image] = true;
    }
  }
}

TEST(KeyedPermutation, LargeSizesStayInsideAndApart) {
  for (const uint64_t size : {(1ULL << 33) + 1, 1ULL << 62, (1ULL << 62) - 1}) {
    const KeyedPermutation permutation(size, 1, 2);
    std::set<uint64_t> images;
    for (uint64_t i = 0; i < 2000; ++i) images.insert(permutation(i));
    EXPECT_EQ(images.size(), 2000U);
    EXPECT_LT(*images.rbegin(), size);
  }
}

TEST(KeyedPermutation, KeysAndTweaksChangeTheOrder) {
  const auto order = [](uint64_t key, uint64_t tweak) {
    std::vector<uint64_t> images;
    for (uint64_t i = 0; i < 100; ++i) images.push_back(KeyedPermutation(100, key, tweak)(i));
    return images;
  };
  EXPECT_EQ(order(1, 1), order(1, 1));
  EXPECT_NE(order(1, 1), order(2, 1));
  EXPECT_NE(order(1, 1), order(1, 2));
}

TEST(KeyedPermutation, EveryPlaceIsEquallyLikely) {
  // Element i of 10 goes to place j in about a tenth of 20,000 keys: mean 2,000, standard deviation 42; eight
  // deviations would be a fault, not chance, even over 100 cells.
  std::vector<std::vector<int>> counts(10, std::vector<int>(10));
  for (uint64_t key = 0; key < 20000; ++key) {
    const KeyedPermutation permutation(10, key, 0);
    for (uint64_t i = 0; i < 10; ++i) ++counts[i][permutation(i)];
  }
  for (const auto& row : counts) {
    for (const int count : row) EXPECT_NEAR(count, 2000, 8 * 42);
  }
}

Mixture mixture_of(const std::vector<double>& weights, int64_t block, uint64_t seed = 1) {
  std::vector<Mixture::Share> shares;
  for (const double weight : weights)
    shares.push_back({std::string(1, static_cast<char>('a' + shares.size())), weight});
  return {shares, block, seed};
}

std::vector<int64_t> quotas_of(const std::vector<double>& weights, int64_t block) {
  const Mixture mixture = mixture_of(weights, block);
  return {mixture.quotas().begin(), mixture.quotas().end()};
}

TEST(Mixture, QuotasAddUpToTheBlock) {
  EXPECT_EQ(quotas_of({1}, 8), (std::vector<int64_t>{8}));
  EXPECT_EQ(quotas_of({1, 1}, 8), (std::vector<int64_t>{4, 4}));
  EXPECT_EQ(quotas_of({0.5, 0.3, 0.2}, 10), (std::vector<int64_t>{5, 3, 2}));
  EXPECT_EQ(quotas_of({1, 1, 1}, 10), (std::vector<int64_t>{4, 3, 3}));
  EXPECT_EQ(quotas_of({67, 15, 4.5, 4.5, 4.5, 2.5, 2}, 1024),
            (std::vector<int64_t>{686, 154, 46, 46, 46, 26, 20}));
}

/// The weights of tests: alike, odd, one far larger than the others, and a block that is no power of two.
struct Case {
  std::vector<double> weights;
  int64_t block;
};
const std::vector<Case> kCases = {{{1}, 1},
                                  {{1}, 7},
                                  {{1, 1}, 2},
                                  {{5, 3, 2}, 10},
                                  {{1, 1, 1}, 1000},
                                  {{97, 1.5, 1.5}, 1024},
                                  {{3, 7, 11, 13, 17}, 331},
                                  {{67, 15, 4.5, 4.5, 4.5, 2.5, 2}, 1024}};

TEST(Mixture, SharesAreExactAndOrdinalsCountUpWithTheIndex) {
  for (const auto& [weights, block] : kCases) {
    const Mixture mixture = mixture_of(weights, block);
    std::vector<uint64_t> next(weights.size());
    for (int64_t b = 0; b < 40; ++b) {
      for (int64_t i = 0; i < block; ++i) {
        const Mixture::Draw draw = mixture.draw(static_cast<uint64_t>(b * block + i));
        ASSERT_EQ(draw.ordinal, next[static_cast<std::size_t>(draw.source)]++) << "block of " << block;
      }
      for (std::size_t s = 0; s < weights.size(); ++s)
        ASSERT_EQ(next[s], static_cast<uint64_t>((b + 1) * mixture.quotas()[s]));
    }
  }
}

TEST(Mixture, AnyIndexIsDrawnWithoutThoseBefore) {
  const Mixture mixture = mixture_of({67, 15, 4.5, 4.5, 4.5, 2.5, 2}, 1024),
                again = mixture_of({67, 15, 4.5, 4.5, 4.5, 2.5, 2}, 1024);
  std::vector<Mixture::Draw> draws;
  for (uint64_t i = 0; i < 5000; ++i) draws.push_back(mixture.draw(i));
  for (uint64_t i = 5000; i-- > 0;) {
    const Mixture::Draw draw = again.draw(i);
    ASSERT_EQ(draw.source, draws[i].source);
    ASSERT_EQ(draw.ordinal, draws[i].ordinal);
  }
  // Far away the same holds: the ordinal of a block's first sample of a source follows from the block alone.
  const uint64_t block = uint64_t{1} << 40;
  std::vector<uint64_t> next;
  for (const int64_t quota : mixture.quotas()) next.push_back(block * static_cast<uint64_t>(quota));
  for (uint64_t i = 0; i < 1024; ++i) {
    const Mixture::Draw draw = mixture.draw(block * 1024 + i);
    ASSERT_EQ(draw.ordinal, next[static_cast<std::size_t>(draw.source)]++);
  }
}

// Not asked for by the shares, but why training likes this order: small parts of a block are mixed alike.
TEST(Mixture, SourcesAreSpreadOverTheBlock) {
  const std::vector<double> weights = {67, 15, 4.5, 4.5, 4.5, 2.5, 2};
  const Mixture mixture = mixture_of(weights, 1024);
  constexpr uint64_t part = 128;
  for (uint64_t first = 0; first < 40 * 1024; first += part) {
    std::vector<double> counts(weights.size());
    for (uint64_t i = first; i < first + part; ++i)
      ++counts[static_cast<std::size_t>(mixture.draw(i).source)];
    // A random order would leave the first source outside of this in a quarter of the parts.
    for (std::size_t s = 0; s < weights.size(); ++s)
      ASSERT_NEAR(counts[s], static_cast<double>(mixture.quotas()[s]) * part / 1024, 4) << "source " << s;
  }
}

TEST(Mixture, EveryPlaceOfABlockIsEquallyLikely) {
  // One sample of ten is b's: in 20,000 blocks each place holds it about 2,000 times, standard deviation 42.
  const Mixture mixture = mixture_of({9, 1}, 10);
  std::vector<int> counts(10);
  for (uint64_t i = 0; i < 200000; ++i) counts[i % 10] += mixture.draw(i).source;
  for (const int count : counts) EXPECT_NEAR(count, 2000, 8 * 42);
}

TEST(Mixture, OrderDependsOnBlockAndSeed) {
  const auto sources = [](uint64_t seed, uint64_t first) {
    const Mixture mixture = mixture_of({1, 1}, 64, seed);
    std::vector<int32_t> order;
    for (uint64_t i = 0; i < 64; ++i) order.push_back(mixture.draw(first + i).source);
    return order;
  };
  EXPECT_EQ(sources(1, 0), sources(1, 0));
  EXPECT_NE(sources(1, 0), sources(1, 64));
  EXPECT_NE(sources(1, 0), sources(2, 0));
}

TEST(Mixture, RefusesWhatNoBlockCanHold) {
  EXPECT_EQ(message_of<ConfigError>([] { mixture_of({}, 8); }),
            "no data source: add a section [data.source.NAME]");
  EXPECT_EQ(message_of<ConfigError>([] { mixture_of({1}, 0); }), "data.block = 0: it must be at least 1");
  EXPECT_EQ(message_of<ConfigError>([] {
              mixture_of({1, -1}, 8);
            }),
            "data.source.b.weight = -1: it must be a positive number; leave the source out to drop it");
  EXPECT_EQ(message_of<ConfigError>([] {
              mixture_of({1, 0.01}, 8);
            }),
            "data.source.b.weight = 0.01: its share of 0.0099 gives no sample in a block of 8; raise "
            "data.block to 101 or "
            "the weight");
  EXPECT_EQ(message_of<ConfigError>([] {
              const std::vector<Mixture::Share> shares = {{"wiki", 1}, {"wiki", 2}};
              Mixture(shares, 8, 1);
            }),
            "two data sources are named 'wiki'");
}

}  // namespace
}  // namespace red::data

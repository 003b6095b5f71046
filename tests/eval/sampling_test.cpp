// Sampling against exact probabilities. A choice is a pure function of seed, sequence and position, so a
// count that lies within its statistical bound once does so for ever.
#include "eval/sampling.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace red::eval {
namespace {

const std::vector<float> kLogits = {0.5F, 2.0F, -1.0F, 1.5F, 0.0F, 1.5F, -3.0F, 0.75F};
constexpr int kDraws = 20000;
/// Of a count, in its standard deviations: with 8 tokens and 9 cases a right sampler would fail for one seed
/// in 200.
constexpr double kDeviations = 4.0;

std::vector<double> softmax(const std::vector<float>& logits, double temperature) {
  std::vector<double> p;
  double total = 0.0;
  for (const float logit : logits)
    total += p.emplace_back(std::exp(static_cast<double>(logit) / temperature));
  for (double& x : p) x /= total;
  return p;
}

/// The probabilities of these tokens alone, the others zero.
std::vector<double> restricted_to(const std::vector<int>& tokens, const std::vector<double>& p) {
  std::vector<double> result(p.size(), 0.0);
  double total = 0.0;
  for (const int token : tokens) total += p[token];
  for (const int token : tokens) result[token] = p[token] / total;
  return result;
}

/// Draws along positions and along sequences, and holds the counts against p.
void expect_distribution(const SamplingConfig& config, const std::vector<double>& p) {
  for (const bool along_positions : {true, false}) {
    Sampler sampler(config);
    std::vector<int> counts(p.size(), 0);
    for (uint64_t i = 0; i < kDraws; ++i) {
      const int32_t token = along_positions ? sampler.pick(kLogits, 3, i) : sampler.pick(kLogits, i, 3);
      ++counts.at(static_cast<std::size_t>(token));
    }
    for (std::size_t token = 0; token < p.size(); ++token) {
      const double bound = kDeviations * std::sqrt(kDraws * p[token] * (1.0 - p[token]));
      EXPECT_NEAR(counts[token], kDraws * p[token], bound) << "token " << token;
    }
  }
}

TEST(Sampling, WithoutTemperatureIsTheLikeliestToken) {
  Sampler sampler({.temperature = 0.0, .top_k = 5, .top_p = 0.9});
  for (uint64_t i = 0; i < 20; ++i) EXPECT_EQ(sampler.pick(kLogits, i, i), 1);
  EXPECT_EQ(sampler.pick(std::vector<float>{-2.0F, -1.0F, -1.0F}, 0, 0), 1);  // the first of equals
  EXPECT_EQ(sampler.pick(std::vector<float>{-2.0F}, 0, 0), 0);
}

TEST(Sampling, FollowsTheProbabilitiesOfTheTemperature) {
  for (const double temperature : {0.5, 1.0, 3.0}) {
    SCOPED_TRACE(temperature);
    expect_distribution({.temperature = temperature}, softmax(kLogits, temperature));
  }
}

TEST(Sampling, FromTheLikeliestK) {
  const std::vector<double> p = softmax(kLogits, 1.0);
  expect_distribution({.temperature = 1.0, .top_k = 4}, restricted_to({1, 3, 5, 7}, p));
  // Tokens 3 and 5 are equally likely: of equals, the first.
  expect_distribution({.temperature = 1.0, .top_k = 2}, restricted_to({1, 3}, p));
  expect_distribution({.temperature = 1.0, .top_k = 1000}, p);
}

/// At temperature 1 the tokens in order of probability, 1 3 5 7 0 4 2 6, reach 0.373, 0.600, 0.826, 0.933,
/// ...
TEST(Sampling, FromTheNucleus) {
  const std::vector<double> p = softmax(kLogits, 1.0);
  EXPECT_NEAR(p[1], 0.35, 0.03);
  const double two = p[1] + p[3], three = two + p[5];
  expect_distribution({.temperature = 1.0, .top_p = 0.5 * (two + three)}, restricted_to({1, 3, 5}, p));
  expect_distribution({.temperature = 1.0, .top_p = two - 1e-6}, restricted_to({1, 3}, p));
  expect_distribution({.temperature = 1.0, .top_p = two + 1e-6}, restricted_to({1, 3, 5}, p));
  expect_distribution({.temperature = 1.0, .top_p = 1e-9}, restricted_to({1}, p));
}

TEST(Sampling, TheNucleusIsOfTheKLikeliest) {
  const std::vector<double> p = softmax(kLogits, 2.0);
  const std::vector<double> four = restricted_to({1, 3, 5, 7}, p);
  // Two of four reach this share of the four, but not of all.
  const double share = four[1] + four[3] - 1e-6;
  ASSERT_GT(share, p[1] + p[3]);
  expect_distribution({.temperature = 2.0, .top_k = 4, .top_p = share}, restricted_to({1, 3}, p));
}

TEST(Sampling, ImpossibleTokensAreNeverDrawn) {
  std::vector<float> logits(50, -std::numeric_limits<float>::infinity());
  logits[7] = 3e4F;
  logits[9] = 3e4F;
  Sampler sampler({.temperature = 1.0});
  int sevens = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    const int32_t token = sampler.pick(logits, 0, i);
    EXPECT_TRUE(token == 7 || token == 9) << token;
    sevens += token == 7 ? 1 : 0;
  }
  EXPECT_NEAR(sevens, 500, kDeviations * std::sqrt(250.0));
}

std::vector<int32_t> draws(uint64_t seed, uint64_t sequence, int count) {
  const std::vector<float> flat(1000, 0.0F);
  Sampler sampler({.temperature = 1.0, .seed = seed});
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(sampler.pick(flat, sequence, i));
  return tokens;
}

int num_equal(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  int equal = 0;
  for (std::size_t i = 0; i < a.size(); ++i) equal += a[i] == b[i] ? 1 : 0;
  return equal;
}

TEST(Sampling, RepeatsWithItsSeedAndDiffersWithAnother) {
  const std::vector<int32_t> first = draws(1, 0, 500);
  EXPECT_EQ(draws(1, 0, 500), first);
  // One in a thousand by chance: half a token of 500, with a deviation of 0.7.
  EXPECT_LE(num_equal(draws(2, 0, 500), first), 4);
  EXPECT_LE(num_equal(draws(1, 1, 500), first), 4);
}

TEST(Sampling, DoesNotDependOnWhatWasDrawnBefore) {
  Sampler used({.temperature = 1.0}), fresh({.temperature = 1.0});
  for (uint64_t i = 0; i < 10; ++i) used.pick(kLogits, 5, i);
  used.pick(std::vector<float>(3, 0.0F), 0, 0);
  EXPECT_EQ(used.pick(kLogits, 2, 77), fresh.pick(kLogits, 2, 77));
}

/// A coin's neighbours: equal as often as not.
TEST(Sampling, NeighboursAreIndependent) {
  const std::vector<float> coin = {0.0F, 0.0F};
  Sampler sampler({.temperature = 1.0});
  int along_positions = 0, along_sequences = 0;
  for (uint64_t i = 0; i < kDraws; ++i) {
    along_positions += sampler.pick(coin, 0, i) == sampler.pick(coin, 0, i + 1) ? 1 : 0;
    along_sequences += sampler.pick(coin, i, 0) == sampler.pick(coin, i + 1, 0) ? 1 : 0;
  }
  const double bound = kDeviations * std::sqrt(0.25 * kDraws);
  EXPECT_NEAR(along_positions, 0.5 * kDraws, bound);
  EXPECT_NEAR(along_sequences, 0.5 * kDraws, bound);
}

}  // namespace
}  // namespace red::eval

// Random numbers: the published answers of Philox4x32-10 and FNV-1a, and the distributions made of them. All
// is a pure function, so a statistical bound that holds once holds for ever.
#include "base/philox.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace red::test {
namespace {

/// Random123 1.14.0, tests/kat_vectors, "philox4x32 10"; words in the order counter 0 ... 3, key 0, 1.
TEST(Philox, GivesTheKnownAnswersOfRandom123) {
  EXPECT_EQ(philox(0, 0, 0), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint64_t ones = ~uint64_t{0};
  EXPECT_EQ(philox(ones, ones, ones), (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

/// Landon Curt Noll's list of FNV-1a, 64 bits.
TEST(HashName, GivesTheKnownAnswersOfFnv1a) {
  EXPECT_EQ(hash_name(""), 0xcbf29ce484222325U);
  EXPECT_EQ(hash_name("a"), 0xaf63dc4c8601ec8cU);
  EXPECT_EQ(hash_name("foobar"), 0x85944171f73967e8U);
  EXPECT_NE(hash_name("a", 1), hash_name("a"));
}

TEST(UniformFloat, IsInZeroToOneWithoutOne) {
  EXPECT_EQ(uniform_float(0), 0.0F);
  EXPECT_EQ(uniform_float(0xff), 0.0F);  // 24 bits count
  EXPECT_EQ(uniform_float(0x80000000), 0.5F);
  EXPECT_EQ(uniform_float(0xffffffff), 1.0F - 0x1.0p-24F);
}

constexpr int kBlocks = 50000, kNumbers = 4 * kBlocks;
constexpr double kDeviations = 4.0;  // of the estimate: a right generator fails once in 16,000 seeds

TEST(UniformFloat, FillsSixteenBinsAlike) {
  std::array<int, 16> bins{};
  for (int i = 0; i < kBlocks; ++i) {
    for (const uint32_t word : philox(7, i)) ++bins[static_cast<int>(16.0F * uniform_float(word))];
  }
  const double expected = kNumbers / 16.0, deviation = std::sqrt(kNumbers * (1.0 / 16) * (15.0 / 16));
  for (const int count : bins) EXPECT_NEAR(count, expected, kDeviations * deviation);
}

TEST(NormalFrom, HasTheMomentsAndSharesOfANormalDistribution) {
  double sum = 0.0, squares = 0.0, fourth = 0.0;
  int within_one = 0, above_two = 0;
  const int pairs = 2 * kBlocks;
  for (int i = 0; i < kBlocks; ++i) {
    const PhiloxBlock words = philox(7, i);
    for (const double x : {normal_from(words[0], words[1]), normal_from(words[2], words[3])}) {
      sum += x;
      squares += x * x;
      fourth += x * x * x * x;
      if (std::abs(x) < 1.0) ++within_one;
      if (x > 2.0) ++above_two;
    }
  }
  // Variances of x, x^2 and x^4 of a normal deviate: 1, 2 and 96.
  EXPECT_NEAR(sum / pairs, 0.0, kDeviations * std::sqrt(1.0 / pairs));
  EXPECT_NEAR(squares / pairs, 1.0, kDeviations * std::sqrt(2.0 / pairs));
  EXPECT_NEAR(fourth / pairs, 3.0, kDeviations * std::sqrt(96.0 / pairs));
  const auto expect_share = [&](int count, double share) {
    EXPECT_NEAR(count, pairs * share, kDeviations * std::sqrt(pairs * share * (1 - share)));
  };
  expect_share(within_one, std::erf(1.0 / std::sqrt(2.0)));
  expect_share(above_two, 0.5 * std::erfc(2.0 / std::sqrt(2.0)));
}

TEST(NormalFrom, IsFiniteForAllWords) {
  for (const uint32_t a : {0U, 1U, 0x7fffffffU, 0xffffffffU}) {
    for (const uint32_t b : {0U, 1U, 0x80000000U, 0xffffffffU}) EXPECT_LT(std::abs(normal_from(a, b)), 6.7);
  }
  EXPECT_NEAR(normal_from(0, 0), std::sqrt(64.0 * std::log(2.0)), 1e-12);  // u = 2^-32, the smallest
  EXPECT_NEAR(normal_from(0x7fffffff, 0x80000000), -std::sqrt(2.0 * std::log(2.0)), 1e-12);  // u = v = 1/2
}

}  // namespace
}  // namespace red::test

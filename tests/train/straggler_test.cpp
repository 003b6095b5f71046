// Who counts as slow: by peers, by the own past, after how long, and who does not.
#include "train/straggler.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "train/straggler_watch.hpp"

namespace red::train {
namespace {

constexpr double kStep = 0.5;
constexpr std::size_t kForward = 1, kBackward = 2, kOther = 4;

OwnTimes usual(double factor = 1.0) {
  return {{0.01 * factor, 0.1 * factor, 0.2 * factor, 0.03 * factor, 0.01 * factor}, 1.0};
}

/// Times of `num_ranks` equal ranks, one of which `change` makes different.
std::vector<OwnTimes> window(int num_ranks, int rank, const std::function<void(OwnTimes&)>& change) {
  std::vector<OwnTimes> ranks(num_ranks, usual());
  change(ranks[rank]);
  return ranks;
}

std::vector<OwnTimes> undisturbed(int num_ranks) {
  return window(num_ranks, 0, [](OwnTimes&) {});
}

TEST(StragglerTest, IsNamedWithItsPhaseInTheThirdWindow) {
  for (const int num_ranks : {2, 3, 4, 7}) {
    StragglerJudge judge(std::vector<int>(num_ranks, 0));
    const auto slow = window(num_ranks, 1, [](OwnTimes& t) { t.phase_s[kForward] += 0.25 * t.total(); });
    for (int i = 0; i < 2; ++i) EXPECT_TRUE(judge.judge(slow, kStep).empty());
    const std::vector<Straggler> named = judge.judge(slow, kStep);
    ASSERT_EQ(named.size(), 1U) << num_ranks;
    EXPECT_EQ(named[0].rank, 1);
    EXPECT_EQ(named[0].phase, kForward);
    EXPECT_NEAR(named[0].slowdown(), 1.25, 1e-9);
    EXPECT_FALSE(named[0].by_past);
  }
}

TEST(StragglerTest, ALittleSlowerIsNotSlow) {
  StragglerJudge judge(std::vector<int>(4, 0));
  for (int i = 0; i < 20; ++i)
    EXPECT_TRUE(judge.judge(window(4, 2, [](OwnTimes& t) { t = usual(1.12); }), kStep).empty());
}

TEST(StragglerTest, SeveralAreNamed) {
  StragglerJudge judge(std::vector<int>(5, 0));
  std::vector<OwnTimes> ranks = undisturbed(5);
  ranks[0] = usual(1.5);
  ranks[4].phase_s[kOther] += 0.4;
  for (int i = 0; i < 2; ++i) judge.judge(ranks, kStep);
  const std::vector<Straggler> named = judge.judge(ranks, kStep);
  ASSERT_EQ(named.size(), 2U);
  EXPECT_EQ(named[0].rank, 0);
  EXPECT_EQ(named[0].phase, kBackward);
  EXPECT_EQ(named[1].rank, 4);
  EXPECT_EQ(named[1].phase, kOther);
}

TEST(StragglerTest, OneHiccupNamesNobodyAndOneGoodWindowClearsNobody) {
  StragglerJudge judge(std::vector<int>(4, 0));
  const auto slow = window(4, 3, [](OwnTimes& t) { t = usual(10.0); });
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(judge.judge(slow, kStep).empty());
    EXPECT_TRUE(judge.judge(undisturbed(4), kStep).empty());
  }
  for (int i = 0; i < 2; ++i) judge.judge(slow, kStep);
  EXPECT_EQ(judge.judge(slow, kStep).size(), 1U);
  EXPECT_EQ(judge.judge(undisturbed(4), kStep).size(), 1U);
  EXPECT_EQ(judge.judge(slow, kStep).size(), 1U);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(judge.judge(undisturbed(4), kStep).size(), 1U);
  EXPECT_TRUE(judge.judge(undisturbed(4), kStep).empty());
}

TEST(StragglerTest, StagesWithMoreToDoAreNotSlow) {
  StragglerJudge judge({0, 0, 1, 1});
  const std::vector<OwnTimes> ranks = {usual(), usual(), usual(3.0), usual(3.0)};
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(judge.judge(ranks, kStep).empty());
}

TEST(StragglerTest, RanksWithMoreSamplesToDoAreNotSlow) {
  StragglerJudge judge(std::vector<int>(2, 0));
  std::vector<OwnTimes> ranks = {usual(), usual(2.0)};
  ranks[0].work = 1e9;
  ranks[1].work = 2e9;
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(judge.judge(ranks, kStep).empty());
  ranks[1].work = 1e9;
  for (int i = 0; i < 2; ++i) judge.judge(ranks, kStep);
  EXPECT_EQ(judge.judge(ranks, kStep).size(), 1U);
}

TEST(StragglerTest, WhatNobodyNoticesIsNotNamed) {
  StragglerJudge judge(std::vector<int>(2, 0));
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(judge.judge(std::vector<OwnTimes>{usual(0.01), usual(0.02)}, kStep).empty());
  }
}

// Of steps of a third of a millisecond any interrupt is a large part.
TEST(StragglerTest, WhatAMachineTakesNowAndThenIsNotNamed) {
  for (const double excess_s : {0.0005, 0.0015}) {
    StragglerJudge judge(std::vector<int>(2, 0));
    std::vector<OwnTimes> ranks = {usual(0.001), usual(0.001)};
    ranks[1].phase_s[kForward] += excess_s;
    for (int i = 0; i < 3; ++i) judge.judge(ranks, 0.001);
    EXPECT_EQ(judge.named().size(), excess_s < 0.001 ? 0U : 1U);
  }
}

// One rank per stage: nobody to compare with.
TEST(StragglerTest, WithoutPeersAChangeOfItsOwnIsNamed) {
  StragglerJudge judge({0, 1, 2});
  std::vector<OwnTimes> ranks = {usual(), usual(2.0), usual(3.0)};
  for (int i = 0; i < 6; ++i) EXPECT_TRUE(judge.judge(ranks, kStep).empty());
  ranks[1].phase_s[kBackward] += 0.3;
  for (int i = 0; i < 2; ++i) judge.judge(ranks, kStep);
  const std::vector<Straggler> named = judge.judge(ranks, kStep);
  ASSERT_EQ(named.size(), 1U);
  EXPECT_EQ(named[0].rank, 1);
  EXPECT_EQ(named[0].phase, kBackward);
  EXPECT_TRUE(named[0].by_past);
  EXPECT_NEAR(named[0].expected_s, usual(2.0).total(), 1e-9);
}

TEST(StragglerTest, WhatChangesForAllIsNobodysFault) {
  StragglerJudge judge({0, 1, 2});
  for (int i = 0; i < 6; ++i) judge.judge(undisturbed(3), kStep);
  const std::vector<OwnTimes> all_slower(3, usual(2.0));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(judge.judge(all_slower, kStep).empty());
}

TEST(StragglerTest, ALoneRankIsNeverSlow) {
  StragglerJudge judge({0});
  for (int i = 0; i < 10; ++i) judge.judge(undisturbed(1), kStep);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(judge.judge(std::vector<OwnTimes>{usual(9.0)}, kStep).empty());
}

/// Windows of twenty steps, each of which is slower at random by up to `most`.
class NoisyRanks {
 public:
  explicit NoisyRanks(double most) : most_(most) {}

  std::vector<OwnTimes> window(std::size_t num_ranks) {
    std::vector<OwnTimes> ranks(num_ranks);
    for (OwnTimes& rank : ranks) {
      for (int step = 0; step < 20; ++step) {
        const double factor = (1.0 + most_ * static_cast<double>(random_() % 1000) / 1000.0) / 20.0;
        for (std::size_t p = 0; p < rank.phase_s.size(); ++p) rank.phase_s[p] += factor * usual().phase_s[p];
      }
    }
    return ranks;
  }

 private:
  const double most_;
  std::mt19937 random_{7};
};

TEST(StragglerTest, NoiseNamesNobody) {
  NoisyRanks noisy(0.4);
  for (const auto& groups : {std::vector<int>(16, 0), std::vector<int>{0, 0, 1, 1}, std::vector<int>{0, 1}}) {
    StragglerJudge judge(groups);
    for (int w = 0; w < 500; ++w)
      EXPECT_TRUE(judge.judge(noisy.window(groups.size()), kStep).empty()) << "window " << w;
  }
}

/// Four windows are whole in any hundred steps.
TEST(StragglerTest, AFifthSlowerIsNamedWithinAHundredStepsWhateverTheNoise) {
  NoisyRanks noisy(0.15);
  for (const std::size_t num_ranks : {2, 4, 16}) {
    for (int again = 0; again < 200; ++again) {
      StragglerJudge judge(std::vector<int>(num_ranks, 0));
      for (int w = 0; w < 4; ++w) {
        std::vector<OwnTimes> ranks = noisy.window(num_ranks);
        for (double& s : ranks[1].phase_s) s *= 1.2;
        judge.judge(ranks, kStep);
      }
      ASSERT_EQ(judge.named().size(), 1U) << num_ranks;
      EXPECT_EQ(judge.named()[0].rank, 1);
    }
  }
}

TEST(GroupsOfPeers, AreStagesWhereTheTensorAxisDividesEvenly) {
  model::ModelConfig model;
  model.num_heads = 4;
  model.d_ff = 6;
  const parallel::Layout layout{.data = 2, .tensor = 2, .encoder_stages = 1, .decoder_stages = 1};
  EXPECT_EQ(groups_of_peers(layout, model), (std::vector<int>{0, 0, 0, 0, 1, 1, 1, 1}));
  model.num_heads = 5;
  EXPECT_EQ(groups_of_peers(layout, model), (std::vector<int>{0, 1, 0, 1, 2, 3, 2, 3}));
}

}  // namespace
}  // namespace red::train

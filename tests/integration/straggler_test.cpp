// A rank that is really slowed down, by stopping its process most of the time, is named in log, metrics and
// status within a hundred steps of that.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "integration/good_inputs.hpp"
#include "integration/slow_rank.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";

class StragglerTest : public testing::Test {
 protected:
  StragglerTest() { copy_good_inputs(folder_.path()); }

  /// Starts a run of two ranks; from its step `begin` on one of them is stopped most of the time. Ends
  /// the run a hundred steps and some later, and returns its metrics.
  std::vector<json> slowed(const std::string& layout, int begin) const {
    const std::string run = fmt::format(
        "{} -n 2 {} train --config=run.ini --train.run_dir=slow --train.precision=fp32 "
        "--schedule.kind=constant "
        "--train.micro_batch=1 --train.global_batch=4 --train.steps=1000000 --train.log_every=1 "
        "--model.d_model=256 --model.d_ff=512 --model.encoder_layers=3 --model.decoder_layers=3 {}",
        kLocal, kProgram, layout);
    return run_with_slow_rank(run, kProgram, {.begin = begin, .steps = 110}, folder_.path());
  }
  std::string log() const { return read_bytes(folder_.path() / "slow.log"); }

  /// What is said of rank 1 at a step; null: nothing. On a busy machine the other may be slow as well.
  static json rank_1(const json& metrics) {
    for (const json& slow : metrics.value("stragglers", json::array())) {
      if (slow.at("rank") == 1) return slow;
    }
    return nullptr;
  }
  /// Rank 1 is named, within 100 steps.
  void expect_named(const std::vector<json>& metrics) const {
    const int begin = std::stoi(read_bytes(folder_.path() / "begin"));
    const auto first = std::find_if(metrics.begin(), metrics.end(), [&](const json& m) {
      return m.at("step") > begin && !rank_1(m).is_null();
    });
    ASSERT_NE(first, metrics.end()) << log();
    EXPECT_LE(first->at("step").get<int>(), begin + 100);
    const json slow = rank_1(*first);
    EXPECT_GT(slow.at("own_s").get<double>(), 1.2 * slow.at("expected_s").get<double>());
    EXPECT_FALSE(slow.at("host").get<std::string>().empty());
    EXPECT_FALSE(slow.at("phase").get<std::string>().empty());
    EXPECT_NE(log().find("warning: step "), std::string::npos) << log();
    EXPECT_NE(log().find(": rank 1 on "), std::string::npos) << log();
    EXPECT_NE(read_bytes(folder_.path() / "status.txt").find("slow         rank 1 on "), std::string::npos)
        << read_bytes(folder_.path() / "status.txt") << log();
  }

  WorkingDirectory folder_;
};

TEST_F(StragglerTest, IsNamedAmongItsPeers) {
  const std::vector<json> metrics = slowed("--parallel.data=2", 30);
  expect_named(metrics);
  // Once per window everybody's time.
  int windows = 0;
  for (const json& m : metrics) {
    if (!m.contains("rank_own_s")) continue;
    EXPECT_EQ(m.at("rank_own_s").size(), 2U);
    EXPECT_EQ(m.at("step").get<int>() % 20, 0);
    ++windows;
  }
  EXPECT_GE(windows, 3);
}

TEST_F(StragglerTest, IsNamedByItsPastWhereItHasNoPeers) {
  expect_named(slowed("--parallel.data=1 --parallel.encoder_stages=1", 150));
}

}  // namespace
}  // namespace red::test

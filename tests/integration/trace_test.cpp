// Traces of all ranks, read back: everything that begins ends, slices lie in each other, each message has two
// ends, and all of a step is there.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";
constexpr double kRounding = 0.01;  // microseconds

class TraceTest : public testing::Test {
 protected:
  TraceTest() { copy_good_inputs(folder_.path()); }

  ChildResult run(int ranks, const std::string& words) const {
    return run_child({"/bin/bash", "-c",
                      fmt::format("exec {} -n {} {} {} --config=run.ini --train.precision=fp32", kLocal,
                                  ranks, kProgram, words)},
                     folder_.path(), 120);
  }
  std::vector<json> events(const fs::path& file) const {
    const json trace = json::parse(read_bytes(folder_.path() / file));
    return trace.at("traceEvents").get<std::vector<json>>();
  }
  WorkingDirectory folder_;
};

std::vector<json> only(const std::vector<json>& events, const std::string& phase,
                       const std::string& category = "") {
  std::vector<json> result;
  for (const json& e : events) {
    if (e.at("ph") == phase && (category.empty() || e.at("cat") == category)) result.push_back(e);
  }
  return result;
}

double end_of(const json& slice) {
  return slice.at("ts").get<double>() + slice.at("dur").get<double>();
}

/// Of one rank's slices each two lie beside or in each other.
void expect_nested(std::vector<json> slices) {
  std::sort(slices.begin(), slices.end(), [](const json& a, const json& b) {
    if (a.at("ts") != b.at("ts")) return a.at("ts") < b.at("ts");
    return a.at("dur") > b.at("dur");
  });
  std::vector<double> ends;
  for (const json& slice : slices) {
    EXPECT_GE(slice.at("dur").get<double>(), 0.0) << slice;
    while (!ends.empty() && ends.back() <= slice.at("ts").get<double>() + kRounding) ends.pop_back();
    if (!ends.empty()) {
      EXPECT_LE(end_of(slice), ends.back() + kRounding) << slice;
    }
    ends.push_back(end_of(slice));
  }
}

void expect_pairs_of_transfers(const std::vector<json>& events) {
  const auto of_its_rank = [](const json& e) {
    return std::pair(e.at("pid").get<int>(), e.at("id2").at("local").get<std::string>());
  };
  std::map<std::pair<int, std::string>, double> open;
  for (const json& e : only(events, "b")) {
    EXPECT_GE(e.at("args").at("bytes"), 0) << e;
    EXPECT_TRUE(open.emplace(of_its_rank(e), e.at("ts")).second) << e;
  }
  EXPECT_FALSE(open.empty());
  for (const json& e : only(events, "e")) {
    const auto begin = open.find(of_its_rank(e));
    ASSERT_NE(begin, open.end()) << e;
    EXPECT_GE(e.at("ts").get<double>(), begin->second) << e;
    open.erase(begin);
  }
  EXPECT_TRUE(open.empty());
}

/// Returns their number.
std::size_t expect_two_ends_of_messages(const std::vector<json>& events) {
  std::map<uint64_t, json> sent;
  for (const json& e : only(events, "s")) {
    EXPECT_TRUE(e.at("id").is_number_unsigned()) << e << ": Perfetto drops arrows with another id";
    EXPECT_TRUE(sent.emplace(e.at("id").get<uint64_t>(), e).second) << e;
  }
  const std::size_t count = sent.size();
  for (const json& e : only(events, "f")) {
    const auto begin = sent.find(e.at("id").get<uint64_t>());
    if (begin == sent.end()) {
      ADD_FAILURE() << "received and not sent: " << e;
      continue;
    }
    EXPECT_NE(begin->second.at("pid"), e.at("pid"));
    constexpr double clocks = 5e4;  // microseconds that they may be measured wrong by, on a busy machine
    EXPECT_GE(e.at("ts").get<double>() + clocks, begin->second.at("ts").get<double>()) << e;
    sent.erase(begin);
  }
  EXPECT_TRUE(sent.empty());
  return count;
}

void expect_sound(const std::vector<json>& events, int num_ranks) {
  std::set<int> named;
  for (const json& e : only(events, "M")) {
    if (e.at("name") == "process_name") named.insert(e.at("pid").get<int>());
  }
  EXPECT_EQ(named.size(), static_cast<std::size_t>(num_ranks));
  for (int rank = 0; rank < num_ranks; ++rank) {
    std::vector<json> own;
    for (const json& e : only(events, "X")) {
      if (e.at("pid") == rank) own.push_back(e);
    }
    EXPECT_FALSE(own.empty()) << rank;
    expect_nested(own);
  }
  expect_pairs_of_transfers(events);
}

std::size_t count_named(const std::vector<json>& events, const std::string& category,
                        const std::string& begin) {
  const auto slices = only(events, "X", category);
  return static_cast<std::size_t>(std::count_if(slices.begin(), slices.end(), [&](const json& e) {
    return e.at("name").get<std::string>().starts_with(begin);
  }));
}

TEST_F(TraceTest, OfTwoStagesHasEveryPassAndMessage) {
  const ChildResult result =
      run(2, "trace --out=t.json --steps=3 --train.global_batch=4 --parallel.encoder_stages=1");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<json> all = events("t.json");
  expect_sound(all, 2);
  EXPECT_EQ(only(all, "X", "step").size(), 6U);  // three on each rank
  EXPECT_EQ(count_named(all, "pipeline", "forward of micro-batch"),
            24U);  // 3 steps, 4 micro-batches, 2 ranks
  EXPECT_EQ(count_named(all, "pipeline", "backward of micro-batch"), 24U);
  EXPECT_EQ(count_named(all, "phase", "optimizer"), 12U);
  // Output there and gradient back, of each micro-batch, and the tied embedding's rows of each step.
  EXPECT_GE(expect_two_ends_of_messages(all), 24U);
  EXPECT_GT(only(all, "X", "wait").size(), 24U);
}

TEST_F(TraceTest, OfFourRanksIsSound) {
  for (const std::string layout :
       {"--parallel.data=2 --parallel.encoder_stages=1", "--parallel.tensor=2 --parallel.data=2",
        "--parallel.tensor=2 --parallel.encoder_stages=1 --parallel.schedule=zb_h1"}) {
    const ChildResult result = run(4, "trace --out=t.json --train.global_batch=4 " + layout);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::vector<json> all = events("t.json");
    expect_sound(all, 4);
    EXPECT_EQ(only(all, "X", "step").size(), 8U);
    expect_two_ends_of_messages(all);
  }
}

TEST_F(TraceTest, OfARunIsInItsFolderAndChangesNothing) {
  const std::string options =
      "train --schedule.kind=constant --train.steps=6 --train.global_batch=4 --parallel.encoder_stages=1 ";
  ASSERT_EQ(run(2, options + "--train.run_dir=plain").exit_code, 0);
  const ChildResult result =
      run(2, options + "--train.run_dir=traced --train.trace_step=3 --train.trace_steps=2");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const std::vector<json> all = events("traced/trace-step-3.json");
  expect_sound(all, 2);
  EXPECT_EQ(count_named(all, "step", "step 3"), 2U);
  EXPECT_EQ(count_named(all, "step", "step 4"), 2U);
  EXPECT_EQ(only(all, "X", "step").size(), 4U);
  const auto digest = [&](const std::string& run_dir) {
    return run_child({kProgram, "inspect", "checkpoint", run_dir, "--digest"}, folder_.path()).out;
  };
  EXPECT_EQ(digest("traced"), digest("plain"));
}

TEST_F(TraceTest, ThatCannotBeWrittenEndsWithItsCode) {
  const ChildResult result = run(2, "trace --out=gone/t.json --train.global_batch=4 --parallel.data=2");
  EXPECT_EQ(result.exit_code, 4) << result.err;
  EXPECT_NE(result.err.find("gone/t.json"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace red::test

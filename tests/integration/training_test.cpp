// What a run writes and how it ends, as a user sees it: metrics after kill -9 and resume, read back by
// TensorBoard; validation against an evaluation of the checkpoint; steps that are not finite; disks that are
// full.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"
#include "support/event_reader.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLauncher = RED_SOURCE_DIR "/launch/local.sh";
const std::string kReader = RED_SOURCE_DIR "/tests/integration/read_event_files.py";
/// Made by launch/python_packages.sh.
const fs::path kPython = RED_SOURCE_DIR "/build/python/bin/python";

class TrainingTest : public testing::Test {
 protected:
  TrainingTest() { copy_good_inputs(folder_.path()); }

  fs::path run_dir() const { return folder_.path() / "training"; }

  /// redllm train on the good inputs into run_dir(), with changes.
  std::vector<std::string> training(const std::vector<std::string>& changes, int num_ranks = 1) const {
    std::vector<std::string> command;
    if (num_ranks > 1) command = {kLauncher, "-n", std::to_string(num_ranks)};
    const std::vector<std::string> words = {kProgram,
                                            "train",
                                            "--config=run.ini",
                                            "--train.run_dir=training",
                                            "--train.precision=fp32",
                                            "--schedule.kind=constant"};
    command.insert(command.end(), words.begin(), words.end());
    command.insert(command.end(), changes.begin(), changes.end());
    return command;
  }
  ChildResult run(const std::vector<std::string>& command) const {
    return run_child(command, folder_.path(), 120);
  }

  std::vector<json> metrics() const {
    std::istringstream lines(read_bytes(run_dir() / "metrics.jsonl"));
    std::vector<json> result;
    for (std::string line; std::getline(lines, line);) result.push_back(json::parse(line));
    return result;
  }

  /// Of the newest checkpoint.
  int64_t saved_step() const {
    int64_t step = 0;
    if (!fs::exists(run_dir() / "checkpoints")) return step;
    for (const auto& entry : fs::directory_iterator(run_dir() / "checkpoints")) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("step-") && name.find('.') == std::string::npos)
        step = std::max<int64_t>(step, std::stoll(name.substr(5)));
    }
    return step;
  }

  /// Ends the run by SIGKILL some steps after a checkpoint.
  void train_and_kill(const std::vector<std::string>& command) const {
    const std::string script = R"(
      "$@" 2>training.log & pid=$!
      for ((i = 0; i < 6000; i++)); do
        steps=$(wc -l 2>/dev/null <training/metrics.jsonl || echo 0)
        if [ -e training/checkpoints/latest ] && ((steps % 100 >= 10 && steps % 100 <= 50)); then break; fi
        sleep 0.01
      done
      kill -9 $pid
      wait $pid
    )";
    std::vector<std::string> words = {"/bin/bash", "-c", script, "bash"};
    words.insert(words.end(), command.begin(), command.end());
    EXPECT_EQ(run(words).exit_code, 128 + 9) << read_bytes(folder_.path() / "training.log");
  }

  static std::size_t count(const std::string& text, const std::string& word) {
    std::size_t number = 0;
    for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++number;
    return number;
  }

  WorkingDirectory folder_;
};

/// Step and value of one curve as metrics.jsonl has it.
std::vector<std::pair<int64_t, float>> curve(const std::vector<json>& metrics, const json::json_pointer& at) {
  std::vector<std::pair<int64_t, float>> points;
  for (const json& line : metrics) {
    if (line.contains(at))
      points.emplace_back(line.at("step"), static_cast<float>(line.at(at).get<double>()));
  }
  return points;
}

class MetricsAfterAKill : public TrainingTest {
 protected:
  MetricsAfterAKill() {
    const std::vector<std::string> often = {"--checkpoint.every=100", "--train.validate_every=10",
                                            "--train.validation_windows=4"};
    std::vector<std::string> changes = often;
    changes.emplace_back("--train.steps=1000000");
    train_and_kill(training(changes));
    saved_ = saved_step();
    killed_at_ = metrics().back().at("step");
    EXPECT_GE(saved_, 100);
    EXPECT_GT(killed_at_, saved_);
    last_ = saved_ + 25;
    changes = often;
    changes.push_back("--train.steps=" + std::to_string(last_));
    changes.emplace_back("--parallel.encoder_stages=1");  // in another layout, while we are at it
    const ChildResult resumed = run(training(changes, 2));
    EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
    EXPECT_NE(resumed.err.find("resuming"), std::string::npos) << resumed.err;
  }

  int64_t saved_ = 0, killed_at_ = 0, last_ = 0;
};

TEST_F(MetricsAfterAKill, HaveEachStepOnce) {
  const std::vector<json> lines = metrics();
  ASSERT_EQ(static_cast<int64_t>(lines.size()), last_);
  for (int64_t i = 0; i < last_; ++i) EXPECT_EQ(lines[i].at("step"), i + 1);
  // What was called off is still there: aside, and in the first event file.
  const std::string removed =
      read_bytes(run_dir() / fmt::format("metrics.jsonl.after-step-{}.removed", saved_));
  EXPECT_EQ(std::count(removed.begin(), removed.end(), '\n'), killed_at_ - saved_);
  EXPECT_EQ(event_files(run_dir()).size(), 2U);
  const auto curves = curves_of(run_dir());
  EXPECT_EQ(curves.at("train/loss"), curve(lines, "/loss"_json_pointer));
  EXPECT_EQ(curves.at("phase_s/forward"), curve(lines, "/phase_s/forward"_json_pointer));
  const auto validation = curve(lines, "/validation/wiki/loss"_json_pointer);
  EXPECT_EQ(static_cast<int64_t>(validation.size()), last_ / 10 + 1);
  EXPECT_EQ(curves.at("validation/wiki/loss"), validation);
}

TEST_F(MetricsAfterAKill, AreReadBackByTensorBoard) {
  if (!fs::exists(kPython)) {
    const char* demanded = std::getenv("RED_REQUIRE_TENSORBOARD");
    if (demanded != nullptr && std::string_view(demanded) == "1")
      FAIL() << kPython
             << " is missing, and RED_REQUIRE_TENSORBOARD asks for it: run launch/python_packages.sh";
    GTEST_SKIP() << "the Python package tensorboard is not installed: launch/python_packages.sh does";
  }
  const ChildResult read = run({kPython.string(), kReader, run_dir().string()});
  ASSERT_EQ(read.exit_code, 0) << read.err;
  const json readers = json::parse(read.out);
  EXPECT_EQ(readers.size(), 2U);
  for (const auto& [reader, tags] : readers.items()) {
    SCOPED_TRACE(reader);
    std::map<std::string, std::vector<std::pair<int64_t, float>>> shown;
    for (const auto& [tag, points] : tags.items()) {
      for (const json& point : points)
        shown[tag].emplace_back(point.at(0), static_cast<float>(point.at(1).get<double>()));
    }
    EXPECT_EQ(shown, curves_of(run_dir()));
    EXPECT_EQ(shown["train/loss"], curve(metrics(), "/loss"_json_pointer));
  }
}

TEST_F(TrainingTest, ValidationIsThePerplexityOfTheCheckpoint) {
  const ChildResult trained = run(training({"--train.steps=5", "--train.validate_every=2",
                                            "--train.validation_windows=6", "--parallel.encoder_stages=1"},
                                           2));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  EXPECT_NE(trained.err.find("step 5: validation loss of wiki "), std::string::npos) << trained.err;
  const std::vector<json> lines = metrics();
  ASSERT_EQ(lines.size(), 5U);
  for (const json& line : lines) {
    const int64_t step = line.at("step");
    EXPECT_EQ(line.contains("validation"), step % 2 == 0 || step == 5) << step;
  }
  const ChildResult evaluated =
      run({kProgram, "eval", "perplexity", "--checkpoint=training", "--max-windows=6", "--json"});
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
  const json expected = json::parse(evaluated.out).at("sources").at("wiki");
  const json& got = lines.back().at("validation").at("wiki");
  EXPECT_EQ(got.at("windows"), 6);
  EXPECT_EQ(got.at("targets"), expected.at("all_targets"));
  // fp32 log-probabilities, products and sums in another order.
  EXPECT_NEAR(got.at("loss").get<double>(), expected.at("all_nats_per_token").get<double>(), 1e-5);
  EXPECT_NEAR(got.at("second_half_loss").get<double>(), expected.at("nats_per_token").get<double>(), 1e-5);
}

TEST_F(TrainingTest, AResumedRunKeepsItsMatrixLibrary) {
  const ChildResult begun = run(training({"--train.steps=2", "--train.gemm=plain"}));
  ASSERT_EQ(begun.exit_code, 0) << begun.err;
  const ChildResult resumed = run(training({"--train.steps=4", "--parallel.data=2"}, 2));
  EXPECT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_NE(resumed.err.find("matrix products by plain loops"), std::string::npos) << resumed.err;
}

TEST_F(TrainingTest, ADeterministicRunTakesTheFirstLibraryAndRepeatsItself) {
  std::string digests[2];
  for (std::string& digest : digests) {
    fs::remove_all(run_dir());
    const ChildResult done = run(training({"--train.steps=3", "--train.deterministic=yes"}));
    ASSERT_EQ(done.exit_code, 0) << done.err;
    EXPECT_NE(done.err.find("matrix products by OpenBLAS"), std::string::npos) << done.err;
    digest = run({kProgram, "inspect", "checkpoint", "training", "--digest"}).out;
  }
  EXPECT_FALSE(digests[0].empty());
  EXPECT_EQ(digests[0], digests[1]);
}

TEST_F(TrainingTest, ComputesAsALesserProcessor) {
  std::vector<std::string> command = {"/usr/bin/env", "RED_MAX_CPU=avx2"};
  for (const std::string& word : training({"--train.steps=2", "--train.precision=auto"}))
    command.push_back(word);
  const ChildResult lesser = run(command);
  EXPECT_EQ(lesser.exit_code, 0) << lesser.err;
  EXPECT_NE(lesser.err.find("CPU, at most avx2 (RED_MAX_CPU), "), std::string::npos) << lesser.err;
  for (const char* const more : {"AMX", "SkylakeX", "Cooperlake", "Sapphirerapids", "bf16"})
    EXPECT_EQ(lesser.err.find(more), std::string::npos) << lesser.err;
  command[1] = "RED_MAX_CPU=avx512";
  const ChildResult without_amx = run(command);  // goes on with the run
  EXPECT_EQ(without_amx.exit_code, 0) << without_amx.err;
  EXPECT_NE(without_amx.err.find("CPU, at most avx512 (RED_MAX_CPU), "), std::string::npos)
      << without_amx.err;
  EXPECT_EQ(without_amx.err.find("AMX"), std::string::npos) << without_amx.err;
  command[1] = "RED_MAX_CPU=sse9";
  const ChildResult refused = run(command);
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
  EXPECT_NE(refused.err.find("RED_MAX_CPU = sse9: avx2, avx512, or unset"), std::string::npos) << refused.err;
}

TEST_F(TrainingTest, TooManyStepsThatAreNotFiniteEndTheRun) {
  for (const int num_ranks : {1, 2}) {
    fs::remove_all(run_dir());
    std::vector<std::string> changes = {"--train.steps=100", "--schedule.peak=1e6",
                                        "--train.max_skipped_steps=2"};
    if (num_ranks > 1) changes.emplace_back("--parallel.data=2");
    const ChildResult result = run(training(changes, num_ranks));
    EXPECT_EQ(result.exit_code, 5) << result.err;
    EXPECT_EQ(count(result.err, "is skipped: loss"), 3U) << result.err;
    EXPECT_EQ(count(result.err, "3 steps in a row were not finite"), 1U) << result.err;
    EXPECT_NE(result.err.find("train.max_skipped_steps = 2"), std::string::npos) << result.err;
    const std::vector<json> lines = metrics();
    ASSERT_GT(lines.size(), 3U);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const bool skipped = i + 3 >= lines.size();
      EXPECT_EQ(lines[i].at("applied").get<bool>(), !skipped) << lines[i];
      EXPECT_EQ(lines[i].contains("skipped_samples"), skipped) << lines[i];
    }
    EXPECT_EQ(lines.back().at("skipped_samples").at("wiki").size(), 2U);  // a global batch
  }
}

TEST_F(TrainingTest, AFullDiskUnderTheMetricsCostsThemAlone) {
  fs::create_directories(run_dir());
  fs::create_symlink("/dev/full", run_dir() / "metrics.jsonl");
  const ChildResult result = run(training({"--train.steps=20"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(count(result.err, "No space left on device"), 1U) << result.err;
  EXPECT_NE(result.err.find("metrics of step 1 are lost"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("the last 20 record(s) could not be written"), std::string::npos) << result.err;
  EXPECT_EQ(curves_of(run_dir()).at("train/loss").size(), 20U);
  EXPECT_EQ(saved_step(), 20);
}

TEST_F(TrainingTest, MetricsThatCannotBeOpenedEndTheRunAtItsStart) {
  fs::create_directories(run_dir() / "metrics.jsonl");
  const ChildResult result = run(training({"--train.steps=20", "--parallel.data=2"}, 2));
  EXPECT_EQ(result.exit_code, 4) << result.err;
  EXPECT_EQ(count(result.err, "metrics.jsonl: cannot open: Is a directory"), 1U) << result.err;
  EXPECT_EQ(saved_step(), 0);
}

}  // namespace
}  // namespace red::test

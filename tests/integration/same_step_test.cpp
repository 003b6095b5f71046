// A step that fails every time: launch/supervise.sh stops, says which samples the step has, and the run goes
// on without them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";
const std::string kSupervise = RED_SOURCE_DIR "/launch/supervise.sh";
const std::string kFaults = RED_BINARY_DIR "/tests/faults/libfailing_files.so";

class SameStepTest : public testing::Test {
 protected:
  SameStepTest() { copy_good_inputs(folder_.path()); }

  static std::string training(const std::string& run_dir, const std::string& more = {}) {
    return fmt::format(
        "{} -n 2 {} train --config=run.ini --train.run_dir={} --train.precision=fp32 --train.gemm=plain "
        "--schedule.kind=constant --parallel.data=2 --train.global_batch=4 --train.micro_batch=1 "
        "--train.steps=12 "
        "--checkpoint.every=4 --checkpoint.async=off --train.log_every=1 {}",
        kLocal, kProgram, run_dir, more);
  }
  ChildResult shell(const std::string& script) const {
    return run_child({"/bin/bash", "-c", script}, folder_.path(), 120);
  }
  json samples(const std::string& run_dir, const std::string& more = {}) const {
    const ChildResult result = shell(fmt::format("{} inspect samples {} --json {}", kProgram, run_dir, more));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }
  /// Training whose ranks are killed where they read the middle of this window.
  static std::string deadly(int64_t window) {
    // Tokens of 320 pieces have two bytes.
    return fmt::format(
        "env LD_PRELOAD={} FAULT_CALL=pread FAULT_PATH=wiki_text FAULT_HOW=kill FAULT_LASTS=1 "
        "FAULT_RANK=any FAULT_BYTE={} ",
        kFaults, (window * kGoodWindow + kGoodWindow / 2) * 2);
  }
  std::string digests(const std::string& run_dir) const {
    const ChildResult result = shell(
        fmt::format("sed 's/.*\"step\":\\([0-9]*\\),.*\"sample_digest\":\"\\([0-9a-f]*\\)\".*/\\1 \\2/' "
                    "{0}/metrics.jsonl; {1} inspect checkpoint {0} --digest",
                    run_dir, kProgram));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  }

  WorkingDirectory folder_;
};

TEST_F(SameStepTest, SamplesOfAStepAreThoseThatItHad) {
  ASSERT_EQ(shell(training("whole")).exit_code, 0);
  // From metrics, from a checkpoint, and from the beginning.
  for (const char* hide : {"", "mv whole/metrics.jsonl away", "mv whole/checkpoints away2"}) {
    ASSERT_EQ(shell(hide).exit_code, 0);
    for (int step = 1; step <= 14; ++step) {
      const json told = samples("whole", fmt::format("--step {}", step));
      EXPECT_EQ(told.at("ranges"), fmt::format("{}-{}", 4 * (step - 1), 4 * step - 1)) << told.dump();
      EXPECT_EQ(told.at("samples").size(), 4U);
    }
  }
  const json told = samples("whole", "--step 3");
  for (const json& sample : told.at("samples")) {
    EXPECT_EQ(sample.at("source"), "wiki");
    const int64_t first = sample.at("documents").at(0), last = sample.at("documents").at(1);
    EXPECT_LE(first, last);
    EXPECT_LT(last, 40);
  }
  EXPECT_EQ(samples("whole").at("step"), 12);  // the last that it was in
  EXPECT_EQ(shell(kProgram + " inspect samples nothing").exit_code, 2);
  EXPECT_EQ(shell(kProgram + " inspect samples whole --step 0").exit_code, 2);
}

TEST_F(SameStepTest, ARunThatDiesInTheSameStepIsStoppedAndGoesOnWithoutItsSamples) {
  ASSERT_EQ(shell(training("whole")).exit_code, 0);
  const json sixth = samples("whole", "--step 6");
  const int64_t window = sixth.at("samples").at(2).at("item");
  const ChildResult stopped = shell(kSupervise + " --max-restarts 9 --backoff 0 --run-dir mine -- " +
                                    deadly(window) + training("mine"));
  EXPECT_TRUE(stopped.exit_code == 6 || stopped.exit_code == 137) << stopped.exit_code << stopped.err;
  for (const char* part : {"for the 3. time in step 6 without getting further: giving up",
                           "inspect samples mine --step 6", "--data.skip_samples=20-23", "documents"})
    EXPECT_NE(stopped.err.find(part), std::string::npos) << part << "\n" << stopped.err;
  EXPECT_EQ(stopped.err.find("restart 3 of"), std::string::npos) << stopped.err;

  const ChildResult again = shell(kSupervise + " --run-dir mine -- " + deadly(window) +
                                  training("mine", "--data.skip_samples=20-23"));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_NE(again.err.find("data.skip_samples = 20-23, in the checkpoint"), std::string::npos) << again.err;
  ASSERT_EQ(shell(training("without", "--data.skip_samples=20-23")).exit_code, 0);
  EXPECT_EQ(digests("mine"), digests("without"));
  EXPECT_NE(digests("mine"), digests("whole"));
  EXPECT_EQ(samples("mine", "--step 6").at("skip_samples"), "20-27");
}

// Data that is wrong ends a run at once; what may be left out is told.
TEST_F(SameStepTest, SamplesThatCannotBeReadAreNamed) {
  ASSERT_EQ(shell(training("whole", "--train.steps=4")).exit_code, 0);
  const ChildResult result = shell(kSupervise +
                                   " --max-restarts 9 --backoff 0 --run-dir whole -- bash -c "
                                   "'echo 3 >whole/at_step; exit 3' " +
                                   kProgram + " train");
  EXPECT_EQ(result.exit_code, 3) << result.err;
  EXPECT_NE(result.err.find("--data.skip_samples=8-11"), std::string::npos) << result.err;
}

TEST_F(SameStepTest, DeathsInOtherStepsDoNotCount) {
  write_bytes(folder_.path() / "walk.sh",
              "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count\n"
              "[ $n -lt 6 ] || exit 0\n"
              "[ $n = 1 ] || echo $((n / 2 + 7)) >run/at_step\n"  // twice each; once no step was begun
              "exit 6\n");
  const ChildResult result =
      shell("mkdir run; " + kSupervise +
            " --max-restarts 9 --backoff 0 --run-dir run -- bash walk.sh; echo $?; cat count");
  EXPECT_EQ(result.out, "0\n7\n") << result.err;
}

}  // namespace
}  // namespace red::test

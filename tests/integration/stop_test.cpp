// Runs that are asked to stop: they save, say so by their exit code, and go on as if nothing had been.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sstream>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";
const std::string kSupervise = RED_SOURCE_DIR "/launch/supervise.sh";

class StopTest : public testing::Test {
 protected:
  StopTest() { copy_good_inputs(folder_.path()); }

  /// Of a run on two ranks into `run_dir`, as a shell's words.
  static std::string training(const std::string& run_dir, int steps) {
    return fmt::format(
        "{} -n 2 {} train --config=run.ini --train.run_dir={} --train.precision=fp32 "
        "--schedule.kind=constant "
        "--parallel.data=2 --train.micro_batch=1 --train.steps={} --checkpoint.every=0 --train.log_every=1",
        kLocal, kProgram, run_dir, steps);
  }
  ChildResult shell(const std::string& script) const {
    return run_child({"/bin/bash", "-c", script}, folder_.path(), 120);
  }
  /// Starts `command`, sends `signal` by the shell's words when a few steps are done, and waits for its end.
  ChildResult interrupted(const std::string& command, const std::string& run_dir,
                          const std::string& signal) const {
    return shell(
        fmt::format("{} & pid=$!\n"
                    "until [ \"$(wc -l 2>/dev/null <{}/metrics.jsonl)\" -ge 3 ] 2>/dev/null; do kill -0 $pid "
                    "|| exit 99; sleep 0.05; done\n"
                    "{}\n"
                    "while :; do wait $pid; code=$?; kill -0 $pid 2>/dev/null || exit $code; done",
                    command, run_dir, signal));
  }
  std::string digest(const std::string& run_dir) const {
    const ChildResult result = shell(fmt::format("{} inspect checkpoint {} --digest", kProgram, run_dir));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return result.out;
  }

  WorkingDirectory folder_;
};

constexpr int kManySteps = 100000;

TEST_F(StopTest, ASignalToOneRankStopsAllAndLosesNothing) {
  for (const std::string name : {"TERM", "INT", "USR1"}) {
    const ChildResult stopped =
        interrupted(training(name, kManySteps), name,
                    fmt::format("kill -{} $(pgrep -n -f '^{} train .*run_dir={} ')", name, kProgram, name));
    EXPECT_EQ(stopped.exit_code, 75) << name << stopped.err;
    EXPECT_NE(stopped.err.find("asked to stop: saving step"), std::string::npos) << stopped.err;
  }
}

// Not SIGINT: a shell makes what it starts in the background deaf to it.
TEST_F(StopTest, TheLauncherHandsOnWhateverItGets) {
  for (const std::string name : {"TERM", "USR1"}) {
    const ChildResult stopped =
        interrupted(kSupervise + " -- " + training(name, kManySteps), name, "kill -" + name + " $pid");
    EXPECT_EQ(stopped.exit_code, 75) << name << stopped.err;
  }
}

TEST_F(StopTest, ARunGoesOnAsIfItHadNotBeenStopped) {
  const ChildResult stopped =
      interrupted(kSupervise + " -- " + training("halves", kManySteps), "halves", "kill -TERM $pid");
  ASSERT_EQ(stopped.exit_code, 75) << stopped.err;
  const ChildResult at = shell("ls -d halves/checkpoints/step-*[0-9] | tail -n 1 | sed 's/.*step-0*//'");
  const int steps = std::stoi(at.out) + 5;
  ASSERT_EQ(shell(training("halves", steps)).exit_code, 0);
  ASSERT_EQ(shell(training("whole", steps)).exit_code, 0);
  EXPECT_EQ(digest("halves"), digest("whole"));
}

// A rank that hangs keeps the run from saving: whoever asked, asks again.
TEST_F(StopTest, ASecondRequestEndsAtOnceWithoutHarm) {
  const std::string run = training("hung", kManySteps) + " --checkpoint.every=2 --train.timeout_s=600";
  const ChildResult result = interrupted(
      fmt::format("set -m; {} --run-dir hung -- {}", kSupervise, run), "hung",  // so that SIGINT is heard
      fmt::format("until [ -e hung/checkpoints/latest ]; do sleep 0.05; done\n"
                  "kill -STOP $(pgrep -n -f '^{} train .*run_dir=hung ')\n"
                  "kill -TERM $pid; sleep 4.5; begin=$SECONDS; kill -INT $pid; wait $pid; code=$?\n"
                  "echo $code $((SECONDS - begin)); left='pgrep -f ^(mpirun|{}).*run_dir=hung'\n"
                  "for i in $(seq 50); do $left >/dev/null || break; sleep 0.1; done; $left; exit $code",
                  kProgram, kProgram));
  EXPECT_EQ(result.exit_code, 143) << result.err;
  EXPECT_NE(result.err.find("SIGINT again: killing the run"), std::string::npos) << result.err;
  std::istringstream told(result.out);
  int code = 0, seconds = 0, left = 0;
  told >> code >> seconds;
  EXPECT_LE(seconds, 12);
  EXPECT_FALSE(told >> left) << "process " << left << " is left";
  EXPECT_EQ(shell(kProgram + " inspect checkpoint hung --verify").exit_code, 0);
  const ChildResult at = shell("cat hung/checkpoints/latest | sed 's/.*step-0*//'");
  const int steps = std::stoi(at.out) + 3;
  EXPECT_EQ(shell(training("hung", steps)).exit_code, 0);
  EXPECT_EQ(shell(training("whole", steps)).exit_code, 0);
  EXPECT_EQ(digest("hung"), digest("whole"));
}

TEST_F(StopTest, AKilledRankIsStartedAgainWithTheOthers) {
  const std::string command = kSupervise + " --max-restarts 3 --backoff 0 --run-dir killed -- " +
                              training("killed", 400) + " --checkpoint.every=2";
  const ChildResult result = interrupted(
      command, "killed", fmt::format("kill -KILL $(pgrep -n -f '^{} train .*run_dir=killed ')", kProgram));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("restart 1 of 3 in 0 s"), std::string::npos) << result.err;
  EXPECT_EQ(shell(training("whole", 400)).exit_code, 0);
  EXPECT_EQ(digest("killed"), digest("whole"));
}

TEST_F(StopTest, WhatDiesIsStartedAgain) {
  const ChildResult result = shell(
      "cat >flaky.sh <<'END'\n"
      "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count\n"
      "[ $n -lt 2 ] && exit 6\n"
      "exit 0\n"
      "END\n" +
      kSupervise + " --max-restarts 2 --backoff 0 -- bash flaky.sh; echo ended with $?; cat count");
  EXPECT_EQ(result.out, "ended with 0\n3\n") << result.err;
  EXPECT_NE(result.err.find("ended with 6: restart 2 of 2"), std::string::npos) << result.err;
}

// What mpirun does where the network to another machine is gone.
TEST_F(StopTest, ALauncherThatStaysBehindItsRanksIsEnded) {
  const ChildResult result = shell("mkdir -p run/watchdog && echo 3 >run/watchdog/ended\n" + kSupervise +
                                   " --run-dir run -- bash -c 'test ! -e run/watchdog/ended || exit 9; echo "
                                   "8 >run/watchdog/ended; sleep 1000'; "
                                   "echo ended with $?");
  EXPECT_EQ(result.out, "ended with 8\n") << result.err;
  EXPECT_NE(result.err.find("its launcher is still there: killing it"), std::string::npos) << result.err;
}

TEST_F(StopTest, WhatWouldFailAgainIsNotStartedAgain) {
  for (const int code : {2, 3, 5, 75}) {
    const ChildResult result = shell(
        fmt::format("{} --max-restarts 5 --backoff 0 -- bash -c 'echo once; exit {}'", kSupervise, code));
    EXPECT_EQ(result.exit_code, code);
    EXPECT_EQ(result.out, "once\n");
  }
}

}  // namespace
}  // namespace red::test

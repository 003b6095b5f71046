// `redllm status` while a run works and after each way it may end, and the lock of its folder.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";
constexpr int kManySteps = 1000000;

class StatusTest : public testing::Test {
 protected:
  StatusTest() { copy_good_inputs(folder_.path()); }

  /// Of a run on two ranks into the folder `mine`, as a shell's words.
  static std::string training(int steps, const std::string& more = {}) {
    return fmt::format(
        "{} -n 2 {} train --config=run.ini --train.run_dir=mine --train.precision=fp32 "
        "--schedule.kind=constant "
        "--parallel.data=2 --train.micro_batch=1 --train.steps={} --checkpoint.every=100 "
        "--checkpoint.keep_last=2 "
        "--train.log_every=1 {}",
        kLocal, kProgram, steps, more);
  }
  ChildResult shell(const std::string& script) const {
    return run_child({"/bin/bash", "-c", script}, folder_.path(), 120);
  }
  json status() const {
    const ChildResult result = run_child({kProgram, "status", "mine", "--json"}, folder_.path());
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  }
  /// Words that wait until the run in `mine` has some steps and a checkpoint.
  static std::string until_saved() {
    return "until [ -e mine/checkpoints/latest ]; do kill -0 $pid || exit 99; sleep 0.05; done\n";
  }
  /// Process numbers of the ranks.
  static std::string ranks() { return fmt::format("$(pgrep -f '^{} train .*run_dir=mine ')", kProgram); }

  WorkingDirectory folder_;
};

TEST_F(StatusTest, OfARunThatWorksAndOfTheSameWhenItWasKilled) {
  const ChildResult result =
      shell(training(kManySteps) + " 2>first.log & pid=$!\n" + until_saved() + kProgram +
            " status mine --json >running.json\n" + kProgram + " status mine >running.txt\n" +
            "cp -r mine before\n" + training(kManySteps) + " 2>second.log; echo $? >second.code\n" +
            "kill -9 " + ranks() + "; wait $pid\n");
  ASSERT_NE(result.exit_code, 99) << read_bytes(folder_.path() / "first.log");
  const json running = json::parse(read_bytes(folder_.path() / "running.json"));
  EXPECT_EQ(running.at("state"), "running");
  EXPECT_GE(running.at("step"), 100);
  EXPECT_EQ(running.at("steps"), kManySteps);
  EXPECT_GT(running.at("left_s"), 0.0);
  EXPECT_GT(running.at("tokens_per_s"), 0.0);
  EXPECT_TRUE(running.at("checkpoint").at("whole"));
  const std::string text = read_bytes(folder_.path() / "running.txt");
  for (const char* part : {"running: host ", "step", "loss", "tokens/s", "time left", "checkpoint", "starts"})
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 24) << text;

  // The second run was refused, on every rank alike, by one message.
  EXPECT_EQ(read_bytes(folder_.path() / "second.code"), "2\n");
  const std::string refused = read_bytes(folder_.path() / "second.log");
  EXPECT_NE(refused.find("a run in this folder is alive: "), std::string::npos) << refused;
  EXPECT_EQ(refused.find("is alive"), refused.rfind("is alive")) << refused;
  EXPECT_EQ(read_bytes(folder_.path() / "before" / "configuration.ini"),
            read_bytes(folder_.path() / "mine" / "configuration.ini"));
  EXPECT_EQ(read_bytes(folder_.path() / "before" / "runs.jsonl"),
            read_bytes(folder_.path() / "mine" / "runs.jsonl")
                .substr(0, read_bytes(folder_.path() / "before" / "runs.jsonl").size()));

  json killed = status();
  EXPECT_TRUE(killed.at("state") == "died" || killed.at("state") == "failed") << killed.dump(2);
  EXPECT_EQ(killed.at("starts").size(), 1U);
  EXPECT_EQ(killed.at("left_s"), nullptr);

  // Started again at once it goes on, and is done.
  const int64_t saved = killed.at("checkpoint").at("step");
  const ChildResult again = shell(training(static_cast<int>(saved) + 5));
  EXPECT_EQ(again.exit_code, 0) << again.err;
  const json finished = status();
  EXPECT_EQ(finished.at("state"), "finished");
  EXPECT_EQ(finished.at("starts").size(), 2U);
  EXPECT_EQ(finished.at("starts").at(1).at("from_step"), saved);
  EXPECT_FALSE(fs::exists(folder_.path() / "mine" / "run.lock"));
}

TEST_F(StatusTest, OfARunThatWasAskedToStop) {
  const ChildResult result = shell(training(kManySteps) + " 2>first.log & pid=$!\n" + until_saved() +
                                   "kill -TERM " + ranks() + "; wait $pid");
  EXPECT_EQ(result.exit_code, 75) << read_bytes(folder_.path() / "first.log");
  const json stopped = status();
  EXPECT_EQ(stopped.at("state"), "stopped");
  EXPECT_EQ(stopped.at("starts").at(0).at("end").at("code"), 75);
  EXPECT_EQ(stopped.at("starts").at(0).at("end").at("step"), stopped.at("checkpoint").at("step"));
}

TEST_F(StatusTest, OfARunThatFailedBeforeItTrained) {
  EXPECT_EQ(shell(training(5, "--data.tokenizer=gone.model")).exit_code, 3);
  const json failed = status();
  EXPECT_EQ(failed.at("state"), "failed");
  EXPECT_EQ(failed.at("starts").at(0).at("from_step"), nullptr);
  EXPECT_NE(failed.at("starts").at(0).at("end").at("reason").get<std::string>().find("gone.model"),
            std::string::npos);
}

TEST_F(StatusTest, OfARunThatLostARank) {
  const ChildResult result =
      shell(training(kManySteps) + " 2>first.log & pid=$!\n" + until_saved() + "kill -9 $(echo " + ranks() +
            " | tr ' ' '\\n' | tail -n 1); wait $pid; exit 0");
  EXPECT_EQ(result.exit_code, 0);
  const json failed = status();
  EXPECT_TRUE(failed.at("state") == "failed" || failed.at("state") == "died") << failed.dump(2);
}

TEST_F(StatusTest, ComparesEveryByteWhenAsked) {
  ASSERT_EQ(shell(training(5)).exit_code, 0);
  EXPECT_EQ(run_child({kProgram, "status", "mine", "--verify"}, folder_.path()).exit_code, 0);
  for (const auto& entry :
       fs::directory_iterator(folder_.path() / "mine" / "checkpoints" / "step-00000005")) {
    if (entry.path().filename() != "shard-00000.h5") continue;
    std::string bytes = read_bytes(entry.path());
    char& byte = bytes[bytes.size() / 2];
    byte = static_cast<char>(byte ^ 1);
    write_bytes(entry.path(), bytes);
  }
  EXPECT_TRUE(status().at("checkpoint").at("whole"));  // sizes are right
  const ChildResult verified = run_child({kProgram, "status", "mine", "--verify"}, folder_.path());
  EXPECT_EQ(verified.exit_code, 3) << verified.out;
  EXPECT_NE(verified.out.find("DAMAGED"), std::string::npos) << verified.out;
}

}  // namespace
}  // namespace red::test

// The life of checkpoints as a user sees it: kill -9 at any instant and go on, disks that are full, which
// checkpoints stay, which one a run goes on from.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLauncher = RED_SOURCE_DIR "/launch/local.sh";

/// A file system of 2 MiB of its own, which can be filled up.
class SmallDisk {
 public:
  explicit SmallDisk(fs::path where) : where_(std::move(where)) {
    fs::create_directories(where_);
    mounted_ = ::mount("tmpfs", where_.c_str(), "tmpfs", 0, "size=2m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(where_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  void fill() const {
    std::ofstream out(where_ / "filler", std::ios::binary);
    const std::string page(4096, 'x');
    while (out.write(page.data(), static_cast<std::streamsize>(page.size())).flush()) {
    }
  }
  void clear() const { fs::remove(where_ / "filler"); }

 private:
  fs::path where_;
  bool mounted_ = false;
};

class CheckpointLifeTest : public testing::Test {
 protected:
  CheckpointLifeTest() { copy_good_inputs(folder_.path()); }

  static std::vector<std::string> training(const std::string& run, std::vector<std::string> changes,
                                           int num_ranks = 1) {
    std::vector<std::string> command;
    if (num_ranks > 1) command = {kLauncher, "-n", std::to_string(num_ranks)};
    for (const std::string& word :
         {kProgram, std::string("train"), std::string("--config=run.ini"), "--train.run_dir=" + run,
          std::string("--train.precision=fp32"), std::string("--schedule.kind=constant")})
      command.push_back(word);
    for (std::string& change : changes) command.push_back(std::move(change));
    return command;
  }
  ChildResult run(const std::vector<std::string>& command) const {
    return run_child(command, folder_.path(), 120);
  }
  /// Behind a few words of a shell.
  ChildResult run_in_shell(const std::string& script, const std::vector<std::string>& command) const {
    std::vector<std::string> words = {"/bin/bash", "-c", script, "bash"};
    words.insert(words.end(), command.begin(), command.end());
    return run(words);
  }
  ChildResult inspect(const std::string& run_dir, const std::string& how) const {
    return run({kProgram, "inspect", "checkpoint", run_dir, how});
  }
  std::set<std::string> checkpoints(const std::string& run_dir) const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path() / run_dir / "checkpoints"))
      names.insert(entry.path().filename().string());
    return names;
  }
  static std::size_t count(const std::string& text, const std::string& word) {
    std::size_t number = 0;
    for (auto at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++number;
    return number;
  }

  /// Killed again and again while it saves every step; then it ends as one that nobody killed.
  void kill_and_go_on(const std::string& async) {
    const std::string steps = "--train.steps=150";
    ASSERT_EQ(run(training("straight", {steps})).exit_code, 0);
    const std::vector<std::string> saving = {steps, "--checkpoint.every=1", "--checkpoint.keep_last=4",
                                             "--checkpoint.async=" + async};
    int num_killed = 0;
    for (int i = 0; i < 8; ++i) {
      const ChildResult killed = run_in_shell(
          fmt::format("timeout -s KILL {}.{:02}s \"$@\"", i / 5, 25 + 9 * i), training("killed", saving));
      const bool was_killed = killed.signal == SIGKILL || killed.exit_code == 128 + SIGKILL;
      EXPECT_TRUE(was_killed || killed.exit_code == 0) << killed.exit_code << killed.err;
      EXPECT_EQ(count(killed.err, "is damaged"), 0U) << killed.err;
      num_killed += was_killed ? 1 : 0;
    }
    EXPECT_GT(num_killed, 0);
    const ChildResult last = run(training("killed", saving));
    EXPECT_EQ(last.exit_code, 0) << last.err;
    EXPECT_EQ(inspect("killed", "--verify").exit_code, 0);
    EXPECT_EQ(inspect("killed", "--digest").out, inspect("straight", "--digest").out);
    std::size_t num_whole = 0;
    for (const std::string& name : checkpoints("killed")) {
      EXPECT_FALSE(name.ends_with(".partial") || name.ends_with(".removing")) << name;
      num_whole += name.find('.') == std::string::npos && name.starts_with("step-");
    }
    EXPECT_EQ(num_whole, 4U);
  }

  WorkingDirectory folder_;
};

TEST_F(CheckpointLifeTest, KilledWhileItSavesBehindTraining) {
  kill_and_go_on("on");
}

TEST_F(CheckpointLifeTest, KilledWhileItSavesAtOnce) {
  kill_and_go_on("off");
}

TEST_F(CheckpointLifeTest, BothModesSaveTheSame) {
  ASSERT_EQ(run(training("first", {"--train.steps=3"})).exit_code, 0);
  const std::string digest = inspect("first", "--digest").out;
  int number = 0;
  for (const char* layout : {"--parallel.data=2", "--parallel.tensor=2", "--parallel.encoder_stages=1"}) {
    for (const char* async : {"on", "off"}) {
      const std::string name = fmt::format("again-{}", number++);
      const ChildResult result =
          run(training(name,
                       {"--train.steps=4", layout, fmt::format("--checkpoint.async={}", async),
                        "--checkpoint.resume=first/checkpoints/step-00000003"},
                       2));
      ASSERT_EQ(result.exit_code, 0) << result.err;
      EXPECT_EQ(inspect(name, "--verify").exit_code, 0);
    }
  }
  for (int i = 0; i < number; i += 2) {
    const std::string on = inspect(fmt::format("again-{}", i), "--digest").out;
    EXPECT_EQ(on, inspect(fmt::format("again-{}", i + 1), "--digest").out);
    EXPECT_NE(on, digest);
  }
}

TEST_F(CheckpointLifeTest, SavesThatFailCostNothingButThemselves) {
  const fs::path dir = folder_.path() / "full/checkpoints";
  const SmallDisk disk(dir);
  if (!disk.mounted()) GTEST_SKIP() << "this user may not mount a tmpfs";
  ASSERT_EQ(run(training("full", {"--train.steps=2"})).exit_code, 0);
  disk.fill();
  for (const char* async : {"--checkpoint.async=on", "--checkpoint.async=off"}) {
    SCOPED_TRACE(async);
    const std::set<std::string> before = checkpoints("full");
    const ChildResult failed = run(
        training("full", {"--train.steps=20", "--checkpoint.every=2", "--checkpoint.max_failures=3", async}));
    EXPECT_EQ(failed.exit_code, 7) << failed.err;
    EXPECT_EQ(count(failed.err, "could not be saved, failure"), 3U) << failed.err;
    EXPECT_EQ(count(failed.err, "fails, training goes on, and the checkpoint before is untouched"),
              async == std::string("--checkpoint.async=on") ? 3U : 0U)
        << failed.err;
    EXPECT_EQ(count(failed.err, "3 saves in a row failed (checkpoint.max_failures = 3)"), 1U) << failed.err;
    EXPECT_NE(failed.err.find("rank 0 on "), std::string::npos) << failed.err;
    EXPECT_NE(failed.err.find("step-00000004.partial/shard-00000.h5"), std::string::npos) << failed.err;
    EXPECT_NE(failed.err.find("No space left on device (errno 28)"), std::string::npos) << failed.err;
    EXPECT_EQ(checkpoints("full"), before);
  }
  // The last save of a run is not optional.
  const ChildResult last = run(training("full", {"--train.steps=3"}));
  EXPECT_EQ(last.exit_code, 7) << last.err;
  EXPECT_EQ(count(last.err, "the last save of the run failed"), 1U) << last.err;
  disk.clear();
  const ChildResult mended = run(training("full", {"--train.steps=20"}));
  EXPECT_EQ(mended.exit_code, 0) << mended.err;
  EXPECT_NE(mended.err.find("resuming full/checkpoints/step-00000002 at step 2"), std::string::npos)
      << mended.err;
  ASSERT_EQ(run(training("straight", {"--train.steps=20"})).exit_code, 0);
  EXPECT_EQ(inspect("full", "--digest").out, inspect("straight", "--digest").out);
}

TEST_F(CheckpointLifeTest, TheNewestAndTheBestStay) {
  const ChildResult result =
      run(training("kept", {"--train.steps=9", "--checkpoint.every=1", "--train.validate_every=2",
                            "--train.validation_windows=4", "--checkpoint.keep_last=2",
                            "--checkpoint.keep_every=5", "--checkpoint.keep_best=1"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::pair<double, int64_t> best = {1e30, 0};
  std::istringstream lines(read_bytes(folder_.path() / "kept/metrics.jsonl"));
  for (std::string text; std::getline(lines, text);) {
    const json line = json::parse(text);
    if (line.contains("validation"))
      best = std::min(best, {line.at("/validation/wiki/loss"_json_pointer).get<double>(), line.at("step")});
  }
  EXPECT_EQ(checkpoints("kept"),
            (std::set<std::string>{"latest", "step-00000005", "step-00000008", "step-00000009",
                                   fmt::format("step-{:08}", best.second)}));
  const json shown = json::parse(run({kProgram, "inspect", "checkpoint",
                                      fmt::format("kept/checkpoints/step-{:08}", best.second), "--json"})
                                     .out);
  EXPECT_EQ(shown.at("validation_loss").get<double>(), best.first);
}

/// Debian's h5py sees each parameter and state of a run whole through the index, as `inspect` does through
/// the shards.
TEST_F(CheckpointLifeTest, H5pySeesWhatInspectSees) {
  const std::string python = "/usr/bin/python3";
  if (run({python, "-c", "import h5py"}).exit_code != 0) GTEST_SKIP() << "python3-h5py is not installed";
  for (const char* layout : {"--parallel.data=2", "--parallel.tensor=2"}) {
    const std::string name = std::string("seen") + layout;
    const ChildResult trained = run(training(
        name, {"--train.steps=2", "--optimizer.factored=yes", "--optimizer.min_dim_to_factor=16", layout},
        2));
    ASSERT_EQ(trained.exit_code, 0) << trained.err;
    const json ours =
        json::parse(run({kProgram, "inspect", "checkpoint", name, "--json", "--tensors"}).out).at("tensors");
    const ChildResult read = run({python, RED_SOURCE_DIR "/tests/integration/read_checkpoint.py",
                                  name + "/checkpoints/step-00000002/index.h5"});
    ASSERT_EQ(read.exit_code, 0) << read.err;
    const json theirs = json::parse(read.out);
    ASSERT_EQ(theirs.size(), ours.size());
    EXPECT_GT(ours.size(), 20U);
    for (const json& tensor : ours) {
      SCOPED_TRACE(tensor.at("name"));
      const json& other = theirs.at(tensor.at("name").get<std::string>());
      EXPECT_EQ(other.at("shape"), tensor.at("shape"));
      EXPECT_EQ(other.at("nan"), tensor.at("num_nan"));
      EXPECT_EQ(other.at("min"), tensor.at("min"));
      EXPECT_EQ(other.at("max"), tensor.at("max"));
      // Both add in fp64, numpy in another order.
      EXPECT_NEAR(other.at("rms").get<double>() / tensor.at("rms").get<double>(), 1.0, 1e-12);
    }
  }
}

TEST_F(CheckpointLifeTest, GoesOnFromTheNewestThatIsWhole) {
  ASSERT_EQ(run(training("run2", {"--train.steps=6", "--checkpoint.every=2"})).exit_code, 0);
  const fs::path dir = folder_.path() / "run2/checkpoints";
  std::string shard = read_bytes(dir / "step-00000006/shard-00000.h5");
  shard[shard.size() / 2] = static_cast<char>(shard[shard.size() / 2] ^ 4);
  write_bytes(dir / "step-00000006/shard-00000.h5", shard);
  fs::create_directory(dir / "step-00000007.partial");
  const ChildResult result =
      run(training("run2", {"--train.steps=8", "--resume", "must", "--parallel.data=2"}, 2));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("resuming run2/checkpoints/step-00000004 at step 4"), std::string::npos)
      << result.err;
  EXPECT_EQ(count(result.err, "is damaged and set aside as 'step-00000006.damaged-1'"), 1U) << result.err;
  EXPECT_EQ(checkpoints("run2"),
            (std::set<std::string>{"latest", "step-00000002", "step-00000004", "step-00000006.damaged-1",
                                   "step-00000007.incomplete-1", "step-00000008"}));
  // And from the one that is named.
  const ChildResult named =
      run(training("run3", {"--train.steps=3", "--resume", "run2/checkpoints/step-00000002"}));
  EXPECT_EQ(named.exit_code, 0) << named.err;
  EXPECT_NE(named.err.find("resuming run2/checkpoints/step-00000002 at step 2"), std::string::npos)
      << named.err;
}

/// What is saved behind an older checkpoint that was named is what the run is from then on: the next start
/// takes it, and the retention keeps it.
TEST_F(CheckpointLifeTest, GoesOnFromAnOlderOneThatIsNamed) {
  ASSERT_EQ(run(training("back", {"--train.steps=6", "--checkpoint.every=2"})).exit_code, 0);
  const std::set<std::string> before = checkpoints("back");
  const std::string older = "--resume=back/checkpoints/step-00000002";
  const ChildResult refused = run(training("back", {"--train.steps=4", older, "--data.seed=12345"}));
  EXPECT_EQ(refused.exit_code, 2) << refused.err;
  EXPECT_EQ(checkpoints("back"), before);
  const std::vector<std::string> keeping = {"--checkpoint.every=1", "--checkpoint.keep_last=2"};
  const ChildResult named = run(training("back", {"--train.steps=4", older, keeping[0], keeping[1]}));
  ASSERT_EQ(named.exit_code, 0) << named.err;
  EXPECT_EQ(count(named.err, "holds 2 checkpoint(s) newer than 'back/checkpoints/step-00000002'"), 1U)
      << named.err;
  std::set<std::string> expected = {"latest", "step-00000003", "step-00000004", "step-00000004.called-off-1",
                                    "step-00000006.called-off-1"};
  EXPECT_EQ(checkpoints("back"), expected);
  const ChildResult next = run(training("back", {"--train.steps=5", keeping[0], keeping[1]}));
  EXPECT_NE(next.err.find("resuming back/checkpoints/step-00000004 at step 4"), std::string::npos)
      << next.err;
  expected.erase("step-00000003");
  expected.insert("step-00000005");
  EXPECT_EQ(checkpoints("back"), expected);
}

}  // namespace
}  // namespace red::test

// Runs the built program on every row of the table and looks at exit code and message; on one rank and, for
// some rows, on several.
#include "integration/bad_input.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <regex>
#include <sstream>
#include <thread>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

std::vector<std::string> command_of(const BadInput& row) {
  std::vector<std::string> command = {kProgram};
  for (std::string arg : row.args) {
    const std::string mark = "{configs}";
    if (const std::size_t at = arg.find(mark); at != std::string::npos)
      arg.replace(at, mark.size(), RED_SOURCE_DIR "/configs");
    command.push_back(arg);
  }
  return command;
}

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++count;
  return count;
}

/// Failures that were told: in the program's own line, or in a rank's line with its time.
std::size_t num_messages(const std::string& err) {
  static const std::regex begins("^(redllm: |[0-9:]{8} (rank [0-9]+ )?error: )");
  std::istringstream lines(err);
  std::size_t count = 0;
  for (std::string line; std::getline(lines, line);)
    count += std::regex_search(line.substr(0, 40), begins) ? 1 : 0;
  return count;
}

std::vector<BadInput> all_rows() {
  std::vector<BadInput> all;
  for (const auto& group : {bad_configurations(), bad_texts(), bad_token_files(), bad_checkpoints()})
    all.insert(all.end(), group.begin(), group.end());
  return all;
}

class BadInputs : public testing::TestWithParam<BadInput> {};

TEST_P(BadInputs, EndsWithMessageAndExitCode) {
  const BadInput& row = GetParam();
  const WorkingDirectory directory(row.files);
  if (row.prepare) row.prepare(directory.path());
  const ChildResult result = run_child(command_of(row), directory.path());
  EXPECT_EQ(result.exit_code, static_cast<int>(row.code)) << result.err;
  EXPECT_EQ(num_messages(result.err), 1U) << result.err;
  for (const std::string& part : row.message)
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
  EXPECT_EQ(result.out, "");
  // "Before anything is allocated": some of the rows describe models of 8B parameters.
  if (!kSanitized && row.code == ExitCode::configuration && !row.prepare) {
    EXPECT_LT(result.max_rss_kib, 64 * 1024);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, BadInputs, testing::ValuesIn(all_rows()),
                         [](const auto& row) { return row.param.name; });

const BadInput& row_of(const std::string& name) {
  static const std::vector<BadInput> rows = all_rows();
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const BadInput& one) { return one.name == name; });
  if (row == rows.end()) throw std::runtime_error("no row " + name);
  return *row;
}

using Words = std::vector<std::string>;

Words ranks_command(int num_ranks) {
  return {kLocal, "-n", std::to_string(num_ranks)};
}

/// The row of this name, on several ranks.
ChildResult run_on_ranks(const std::string& name, int num_ranks, const Words& more_args = {}) {
  const BadInput& row = row_of(name);
  const WorkingDirectory directory(row.files);
  if (row.prepare) row.prepare(directory.path());
  Words command = ranks_command(num_ranks);
  for (const Words& words : {command_of(row), more_args})
    command.insert(command.end(), words.begin(), words.end());
  return run_child(command, directory.path());
}

/// What a rank's shell wrote down; waits for it, because mpirun may be gone before the shell is.
std::string code_of_rank(const std::filesystem::path& here, int rank) {
  const std::filesystem::path file = here / fmt::format("code.{}", rank);
  for (int turn = 0; turn < 500; ++turn) {
    const std::string code = std::filesystem::exists(file) ? read_bytes(file) : "";
    if (code.ends_with('\n')) return code.substr(0, code.size() - 1);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return "no code";
}

/// What is wrong with a row's end on several ranks; empty: nothing. mpirun passes one rank's code on and
/// kills the other ranks as soon as one has left; so each rank runs in a session of its own, which mpirun
/// does not know, and a shell there writes its code down.
std::string complaint_on_ranks(const BadInput& row, int num_ranks, const Words& more_args) {
  const WorkingDirectory directory(row.files);
  if (row.prepare) row.prepare(directory.path());
  Words command = ranks_command(num_ranks);
  for (const Words& words : {Words{"/usr/bin/setsid", "--wait", "/bin/sh", "-c",
                                   "timeout 60 \"$@\"; echo $? >code.$OMPI_COMM_WORLD_RANK", "sh"},
                             command_of(row), more_args})
    command.insert(command.end(), words.begin(), words.end());
  const ChildResult result = run_child(command, directory.path());
  std::string wrong;
  if (result.signal != 0) wrong += "it hung; ";
  for (int rank = 0; rank < num_ranks; ++rank) {
    const std::string code = code_of_rank(directory.path(), rank);
    if (code != std::to_string(static_cast<int>(row.code)))
      wrong += fmt::format("rank {} ended with {}; ", rank, code);
  }
  if (!result.out.empty()) wrong += "something was printed; ";
  if (num_messages(result.err) != 1) wrong += fmt::format("{} messages; ", num_messages(result.err));
  for (const std::string& part : row.message) {
    if (result.err.find(part) == std::string::npos) wrong += fmt::format("no '{}'; ", part);
  }
  if (wrong.empty()) return {};
  return fmt::format("{}: {}\n{}\n{}", row.name, wrong, result.out, result.err);
}

/// What a run of good_inputs.hpp needs to be one of several ranks.
Words layout_for(const BadInput& row, int num_ranks) {
  if (row.args.empty() || row.args.front() != "train") return {};
  return {fmt::format("--parallel.data={}", num_ranks), fmt::format("--train.global_batch={}", num_ranks)};
}

// Several rows at a time: most of a row is waiting for processes to start and to leave.
TEST(EveryRowOnEightRanks, EndsWithOneMessageAndTheSameExitCodeOnEachRank) {
  const std::vector<BadInput> rows = all_rows();
  std::vector<std::string> complaints(rows.size());
  std::atomic<std::size_t> next{0};
  std::vector<std::thread> workers;
  for (int i = 0; i < 6; ++i) {
    workers.emplace_back([&] {
      for (std::size_t row = next++; row < rows.size(); row = next++)
        complaints[row] = complaint_on_ranks(rows[row], 8, layout_for(rows[row], 8));
    });
  }
  for (std::thread& worker : workers) worker.join();
  for (const std::string& complaint : complaints) EXPECT_EQ(complaint, "");
}

TEST(BadInputOnRanks, OneMessageAndTheExitCodeOfMpirun) {
  for (const std::string name : {"UnknownKey", "MissingFile", "BatchDoesNotDivide"}) {
    const ChildResult result = run_on_ranks(name, 4);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(num_messages(result.err), 1U) << result.err;
  }
  const ChildResult result = run_on_ranks("IdBeyondTheVocabularyInOneWindow", 2,
                                          layout_for(row_of("IdBeyondTheVocabularyInOneWindow"), 2));
  EXPECT_EQ(result.exit_code, 3) << result.err;
  EXPECT_NE(result.err.find("outside the vocabulary"), std::string::npos) << result.err;
}

// What each rank finds before MPI starts, what only one runs into, and what all of them do; all other rows in
// the test on eight ranks.
TEST(BadInputOnRanks, EveryRankLeavesWithTheSameCode) {
  for (const std::string name :
       {"UnknownKey", "MissingTokens", "IdBeyondTheVocabularyInOneWindow", "ResumeOfAnotherModel"}) {
    const BadInput& row = row_of(name);
    EXPECT_EQ(complaint_on_ranks(row, 2, layout_for(row, 2)), "");
  }
}

// A command that works as one process does its work once, and prints it once.
TEST(ProgramOnRanks, TheFirstRankWorksForAll) {
  const WorkingDirectory directory;
  copy_good_inputs(directory.path());
  Words command = ranks_command(4);
  command.insert(command.end(), {kProgram, "data", "verify", "--tokenizer", "t.model", "wiki"});
  const ChildResult result = run_child(command, directory.path());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  EXPECT_EQ(count_of(result.out, "wiki_text_document: whole"), 1U) << result.out;
}

TEST(ProgramOnRanks, RanksThatMpiDoesNotJoinAreRefused) {
  const ChildResult result = run_child({"/usr/bin/env", "PMI_SIZE=4", kProgram, "config", "docs"}, ".");
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_EQ(result.out, "");
  EXPECT_NE(result.err.find("the launcher started 4 ranks, but MPI sees 1: use Open MPI's mpirun"),
            std::string::npos)
      << result.err;
}

TEST(Program, HelpAndVersionAreQuickAndOnStandardOutput) {
  ChildResult best;
  for (int trial = 0; trial < 5; ++trial) {
    const ChildResult result = run_child({kProgram, "--help"}, ".");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.out.find("usage: redllm COMMAND"), std::string::npos);
    if (trial == 0 || result.cpu_s < best.cpu_s) best = result;
  }
  // Processor time, so that a busy machine does not matter.
  if (!kSanitized) {
    EXPECT_LT(best.cpu_s, 0.050);
  }
  const ChildResult version = run_child({kProgram, "--version"}, ".");
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_TRUE(version.out.starts_with("redllm ")) << version.out;
}

TEST(Program, AFullDiskBehindStandardOutputIsAnError) {
  const ChildResult result = run_child({"/bin/sh", "-c", "\"$0\" --help >/dev/full", kProgram}, ".");
  EXPECT_EQ(result.exit_code, static_cast<int>(ExitCode::io));
  EXPECT_NE(result.err.find("standard output: not everything could be written"), std::string::npos)
      << result.err;
}

TEST(Program, PrintsTheEffectiveConfigurationThatGivesItselfAgain) {
  const std::string configs = RED_SOURCE_DIR "/configs";
  const ChildResult first =
      run_child({kProgram, "config", "show", "--config", configs + "/models/red_tiny.ini", "--config",
                 configs + "/pretrain.ini", "--train.run_dir=some where # else"},
                ".");
  ASSERT_EQ(first.exit_code, 0) << first.err;
  const WorkingDirectory directory({{"x.ini", first.out}});
  const ChildResult second = run_child({kProgram, "config", "show", "--config", "x.ini"}, directory.path());
  ASSERT_EQ(second.exit_code, 0) << second.err;
  const auto without_origins = [](const std::string& text) {
    std::string result;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string line = text.substr(begin, end - begin);
      result += line.substr(0, line.rfind(" # ")) + "\n";
      begin = end + 1;
    }
    return result;
  };
  EXPECT_EQ(without_origins(first.out), without_origins(second.out));
  EXPECT_NE(second.out.find("run_dir = \"some where # else\""), std::string::npos);
}

}  // namespace
}  // namespace red::test

// Runs the built program on every row of the table and looks at exit code and message; on one rank and, for
// some rows, on several.
#include "integration/bad_input.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <sstream>

#include "integration/child_process.hpp"
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

/// The row of this name, on several ranks. keep_codes: each rank's code is printed, and mpirun ends none.
ChildResult run_on_ranks(const std::string& name, int num_ranks, bool keep_codes,
                         const std::vector<std::string>& more_args = {}) {
  const std::vector<BadInput> rows = all_rows();
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&](const BadInput& one) { return one.name == name; });
  if (row == rows.end()) throw std::runtime_error("no row " + name);
  const WorkingDirectory directory(row->files);
  if (row->prepare) row->prepare(directory.path());
  std::vector<std::string> command = {kLocal, "-n", std::to_string(num_ranks)};
  if (keep_codes) command.insert(command.end(), {"/bin/sh", "-c", "\"$@\"; echo code=$?", "sh"});
  for (const std::string& word : command_of(*row)) command.push_back(word);
  command.insert(command.end(), more_args.begin(), more_args.end());
  return run_child(command, directory.path());
}

TEST(BadInputOnRanks, OneMessageAndTheExitCodeOfMpirun) {
  for (const std::string name : {"UnknownKey", "MissingFile", "BatchDoesNotDivide"}) {
    const ChildResult result = run_on_ranks(name, 4, false);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_EQ(count_of(result.err, "redllm: "), 1U) << result.err;
  }
}

TEST(BadInputOnRanks, EveryRankLeavesWithTheSameCode) {
  const ChildResult result = run_on_ranks("UnknownKey", 4, true);
  EXPECT_EQ(count_of(result.out, "code=2"), 4U) << result.out << result.err;
  EXPECT_EQ(count_of(result.err, "unknown key 'model.d_modle'"), 1U) << result.err;
}

// What only one rank runs into, and what all of them do: everybody leaves long before the deadline.
TEST(BadInputOnRanks, NoRankStaysBehindWhenDataIsBad) {
  for (const std::string name :
       {"IdBeyondTheVocabularyInOneWindow", "TrainingOnTruncatedTokens", "ResumeOfAnotherModel"}) {
    SCOPED_TRACE(name);
    const ChildResult result = run_on_ranks(name, 2, true, {"--parallel.data=2"});
    EXPECT_EQ(result.signal, 0) << "it hung";
    const char* code = name == "ResumeOfAnotherModel" ? "code=2" : "code=3";
    EXPECT_EQ(count_of(result.out, code), 2U) << result.out << result.err;
    EXPECT_EQ(num_messages(result.err), 1U) << result.err;
  }
}

TEST(BadInputOnRanks, MpirunHasTheExitCodeOfBadData) {
  const ChildResult result =
      run_on_ranks("IdBeyondTheVocabularyInOneWindow", 2, false, {"--parallel.data=2"});
  EXPECT_EQ(result.exit_code, 3) << result.err;
  EXPECT_NE(result.err.find("outside the vocabulary"), std::string::npos) << result.err;
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

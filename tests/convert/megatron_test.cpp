// Token files from here to Megatron's layout and back, through the program, with a reader and a writer of
// that layout that share nothing with it (tests/data/read_megatron.py, write_megatron.py).
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "data/token_file.hpp"
#include "data/tokenizer.hpp"
#include "integration/child_process.hpp"
#include "integration/plain_text.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kReader = RED_SOURCE_DIR "/tests/data/read_megatron.py";
const std::string kWriter = RED_SOURCE_DIR "/tests/convert/write_megatron.py";

class MegatronTest : public testing::Test {
 protected:
  MegatronTest() {
    succeeds({kProgram, "tokenizer", "train", "--out", "t.model", "--vocab-size", "320", "wiki.jsonl"});
  }

  std::string succeeds(const std::vector<std::string>& command) const {
    const ChildResult result = run_child(command, folder_.path());
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(command) << "\n" << result.err;
    return result.out;
  }
  data::Tokenizer tokenizer() const { return data::Tokenizer(folder_.path() / "t.model"); }

  /// Ids of document `number` with [EOD].
  std::vector<int32_t> ids_of(uint64_t number) const {
    std::vector<int32_t> ids = tokenizer().encode(document(number));
    ids.push_back(tokenizer().ids().eod);
    return ids;
  }

  WorkingDirectory folder_{{{"wiki.jsonl", json_lines(0, 30)}}};
};

TEST_F(MegatronTest, ReadsWhatTheProgramWrites) {
  succeeds(
      {kProgram, "data", "build", "--tokenizer", "t.model", "--out", "wiki", "--no-shuffle", "wiki.jsonl"});
  std::istringstream lines(succeeds({"/usr/bin/python3", kReader, "wiki_text_document"}));
  std::string line;
  std::getline(lines, line);
  EXPECT_EQ(line, "dtype uint16");
  uint64_t number = 0;
  for (; std::getline(lines, line); ++number)
    EXPECT_EQ(line, fmt::format("{}", fmt::join(ids_of(number), " ")));
  EXPECT_EQ(number, 30U);
}

TEST_F(MegatronTest, WritesWhatTheProgramReads) {
  for (const std::string dtype : {"uint16", "int32"}) {
    SCOPED_TRACE(dtype);
    std::string documents;
    std::vector<int32_t> expected;
    for (uint64_t number = 0; number < 30; ++number) {
      const std::vector<int32_t> ids = ids_of(number);
      documents += fmt::format("{}\n", fmt::join(ids, " "));
      expected.insert(expected.end(), ids.begin(), ids.end());
    }
    write_bytes(folder_.path() / "documents.txt", documents);
    const std::string prefix = dtype + "_text_document";
    succeeds(
        {"/bin/sh", "-c", "/usr/bin/python3 \"$0\" \"$1\" \"$2\" <documents.txt", kWriter, prefix, dtype});
    const data::TokenFile file(folder_.path() / prefix);
    EXPECT_EQ(file.num_documents(), 30);
    std::vector<int32_t> tokens(static_cast<std::size_t>(file.num_tokens()));
    file.read(0, tokens);
    EXPECT_EQ(tokens, expected);
    succeeds({kProgram, "data", "verify", "--tokenizer", "t.model", dtype});
    const std::string shown =
        succeeds({kProgram, "data", "show", "--tokenizer", "t.model", "--window", "64", "--at", "0", dtype});
    EXPECT_NE(shown.find("The "), std::string::npos) << shown;
  }
}

/// Several sequences in a document, as Megatron writes with --split-sentences.
TEST_F(MegatronTest, DocumentsOfSeveralSequencesAreRead) {
  write_bytes(folder_.path() / "documents.txt", "7 8 9|10 4\n11|12|4\n");
  succeeds({"/bin/sh", "-c", "/usr/bin/python3 \"$0\" \"$1\" int32 <documents.txt", kWriter,
            "several_text_document"});
  const data::TokenFile file(folder_.path() / "several_text_document");
  EXPECT_EQ(file.num_documents(), 2);
  EXPECT_EQ(file.num_sequences(), 5);
  EXPECT_EQ(file.num_sequences_of(1), 3);
  std::vector<int32_t> tokens(8);
  file.read(0, tokens);
  EXPECT_EQ(tokens, (std::vector<int32_t>{7, 8, 9, 10, 4, 11, 12, 4}));
}

}  // namespace
}  // namespace red::test

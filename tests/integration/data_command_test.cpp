// Runs `redllm tokenizer train` and `redllm data ...` as users do: what they print, how they end, and what is
// left of a build that was killed.
#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "data/compressed.hpp"
#include "data/test_files.hpp"
#include "data/texts.hpp"
#include "integration/child_process.hpp"

namespace red::test {
namespace {

using Words = std::vector<std::string>;
using data::read_file;
using data::write_file;

const std::string kProgram = RED_BINARY_DIR "/redllm";
constexpr int kConfigurationError = static_cast<int>(ExitCode::configuration);
constexpr int kDataError = static_cast<int>(ExitCode::data);

std::string json_lines(const Words& texts) {
  std::string lines;
  for (const std::string& text : texts) lines += nlohmann::json({{"text", text}}).dump() + "\n";
  return lines;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class DataCommand : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared() = std::make_unique<data::TempFolder>();
    write_file(*shared() / "t.jsonl.gz", data::gzip(json_lines(data::make_texts(200))));
    const ChildResult result =
        run_child({kProgram, "tokenizer", "train", "--out=t.model", "--vocab-size=600", "t.jsonl.gz"},
                  shared()->path());
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_TRUE(contains(result.out, "t.model: 600 pieces, SHA-256 ")) << result.out;
  }
  static void TearDownTestSuite() { shared().reset(); }

  ChildResult run(Words words, double deadline_s = 60) const {
    words.insert(words.begin(), {kProgram, "data"});
    return run_child(words, folder_.path(), deadline_s);
  }
  ChildResult build(const Words& words, double deadline_s = 60) const {
    Words all = {"build", tokenizer(), "--out=out"};
    all.insert(all.end(), words.begin(), words.end());
    return run(all, deadline_s);
  }
  /// A folder with the tokenizer of all tests.
  static std::unique_ptr<data::TempFolder>& shared() {
    static std::unique_ptr<data::TempFolder> folder;
    return folder;
  }
  static std::string tokenizer() { return "--tokenizer=" + (*shared() / "t.model").string(); }
  nlohmann::json sidecar(const std::string& name) const {
    return nlohmann::json::parse(read_file(folder_ / name));
  }
  std::size_t num_files() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_.path()), {}));
  }
  data::TempFolder folder_;
};

TEST_F(DataCommand, BuildsVerifiesAndShows) {
  write_file(folder_ / "a.jsonl.zst", data::zstd(json_lines(data::make_texts(90))));
  write_file(folder_ / "b.txt", "one\n\ntwo\n\nthree\n\n\nfour\n\nfive\n\nsix\n\n7\n\n8\n\n9\n\n10\n");
  const ChildResult built = build({"--held-out=0.1", "--split=blank-lines", "a.jsonl.zst", "b.txt"});
  ASSERT_EQ(built.exit_code, 0) << built.err;
  EXPECT_TRUE(contains(built.out, "out_text_document: 90 documents, ")) << built.out;
  EXPECT_TRUE(contains(built.out, "out_heldout_text_document: 10 documents, ")) << built.out;
  const auto training = sidecar("out_text_document.json"),
             held_out = sidecar("out_heldout_text_document.json");
  EXPECT_EQ(training["documents"], 90);
  EXPECT_EQ(held_out["documents"], 10);
  EXPECT_GT(training["unigram_entropy"], 1.0);
  EXPECT_EQ(training["build"]["inputs"], (Words{"a.jsonl.zst", "b.txt"}));
  EXPECT_TRUE(contains(
      built.out, fmt::format("unigram entropy {:.3f} nats/token", training["unigram_entropy"].get<double>())))
      << built.out;

  const ChildResult verified = run({"verify", tokenizer(), "out", "out_heldout"});
  EXPECT_EQ(verified.exit_code, 0) << verified.err;
  EXPECT_TRUE(contains(verified.out, "out_text_document: whole; 90 documents, ")) << verified.out;
  EXPECT_TRUE(contains(verified.out, "out_heldout_text_document: whole; 10 documents, ")) << verified.out;
  const ChildResult shown = run({"show", tokenizer(), "--window=64", "--sample=2", "out"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_TRUE(contains(shown.out, "second half (RedLLM: target)")) << shown.out;
}

TEST_F(DataCommand, BadLinesAreLocatedCountedAndLimited) {
  write_file(folder_ / "a.jsonl", "{\"text\":\"one\"}\nno JSON\n{\"text\":\"two\"}\n{\"txt\":\"x\"}\n");
  const auto failed = [&](const Words& words, const std::string& message) {
    const ChildResult result = build(words);
    EXPECT_EQ(result.exit_code, kDataError) << result.err;
    EXPECT_TRUE(contains(result.err, message)) << result.err;
    EXPECT_EQ(num_files(), 1U);  // the input
  };
  failed({"a.jsonl"}, "a.jsonl:2: is no valid JSON");
  failed({"--max-bad-lines=1", "a.jsonl"},
         "a.jsonl:4: has no field \"text\"; bad line number 2, --max-bad-lines allows 1");
  const ChildResult result = build({"--max-bad-lines=2", "a.jsonl"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_TRUE(contains(result.err, "a.jsonl:2: is no valid JSON")) << result.err;
  EXPECT_TRUE(contains(result.out, "2 bad lines skipped")) << result.out;
  EXPECT_EQ(sidecar("out_text_document.json")["documents"], 2);
  EXPECT_EQ(sidecar("out_text_document.json")["build"]["bad_lines"], 2);
}

TEST_F(DataCommand, VerifyFailsOnFilesThatAreNotWhole) {
  write_file(folder_ / "a.jsonl", json_lines(data::make_texts(20)));
  ASSERT_EQ(build({"a.jsonl"}).exit_code, 0);
  ASSERT_EQ(run({"verify", "out"}).exit_code, 0);
  const auto bin = folder_ / "out_text_document.bin";
  std::filesystem::resize_file(bin, std::filesystem::file_size(bin) - 2);
  const ChildResult result = run({"verify", "out"});
  EXPECT_EQ(result.exit_code, kDataError);
  EXPECT_TRUE(contains(result.err, "out_text_document.bin: ")) << result.err;
  EXPECT_TRUE(contains(result.err, "it was truncated")) << result.err;
}

TEST_F(DataCommand, OptionsOutOfRange) {
  write_file(folder_ / "a.jsonl", json_lines({"one"}));
  for (const std::string option : {"--held-out=1.5", "--max-bad-lines=-1", "--workers=0", "--split=words",
                                   "--split=separator", "--format=csv", "--seed=x"}) {
    const ChildResult result = build({option, "a.jsonl"});
    EXPECT_EQ(result.exit_code, kConfigurationError) << option << "\n" << result.err;
    EXPECT_TRUE(contains(result.err, option.substr(0, option.find('=')))) << result.err;
  }
  EXPECT_EQ(num_files(), 1U);
}

TEST_F(DataCommand, AKilledBuildLeavesOldFilesNoFilesOrNewFiles) {
  write_file(folder_ / "a.jsonl", json_lines(data::make_texts(4000)));
  const Words words = {"--held-out=0.1", "--workers=1", "a.jsonl"};
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_EQ(build(words).exit_code, 0);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const Words names = {"out_text_document", "out_heldout_text_document"};
  Words whole;
  for (const std::string& name : names) whole.push_back(read_file(folder_ / (name + ".bin")));

  int killed = 0;
  for (int i = 0; i < 12; ++i) {
    // The first half begins without files, the second over older ones.
    for (const std::string& name : names) {
      for (const char* suffix : {".bin", ".idx", ".json"}) std::filesystem::remove(folder_ / (name + suffix));
    }
    if (i >= 6) {
      ASSERT_EQ(build({"--held-out=0.1", "--seed=2", "a.jsonl"}).exit_code, 0);
    }
    killed += build(words, seconds * (i % 6 + 0.5) / 6).signal == SIGKILL ? 1 : 0;
    for (const std::string& name : names) {
      if (!std::filesystem::exists(folder_ / (name + ".idx"))) continue;
      const ChildResult result = run({"verify", tokenizer(), name});
      EXPECT_EQ(result.exit_code, 0) << result.err;
    }
  }
  EXPECT_GE(killed, 4);
  // What was left behind is in nobody's way.
  ASSERT_EQ(build(words).exit_code, 0);
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_TRUE(read_file(folder_ / (names[i] + ".bin")) == whole[i]) << names[i];
  }
  EXPECT_EQ(num_files(), 7U);
}

}  // namespace
}  // namespace red::test

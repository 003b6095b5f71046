// The program from text to a continuation, as a user runs it: tokenizer, token files, training on several
// ranks, resume, perplexity, generation, inspection; a RedLLM with its encoder on ranks of its own and a
// DecLLM.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "integration/child_process.hpp"
#include "integration/plain_text.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int kVocabulary = 400, kWindow = 64, kSteps = 20, kMoreSteps = 24, kBatch = 16;
constexpr int kDocuments = 120;
constexpr double kDeadline = 240;

const std::string kModel = R"([model]
name = small
vocab_size = 400
d_model = 64
d_ff = 128
num_heads = 2
head_dim = 32
decoder_layers = 1
)";

const std::string kRun = R"([train]
steps = 20
global_batch = 16
micro_batch = 2
threads = 1
[schedule]
kind = constant
peak = 0.02
warmup_steps = 5
[data]
tokenizer = t.model
window = 64
[data.source.wiki]
tokens = wiki
held_out = wiki_heldout
[data.source.books]
tokens = books
held_out = books_heldout
weight = 2
)";

class ProgramTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_folder = std::make_unique<WorkingDirectory>(
        std::map<std::string, std::string>{{"red.ini", kModel + "kind = red\nencoder_layers = 1\n" + kRun},
                                           {"dec.ini", kModel + "kind = dec\n" + kRun},
                                           {"wiki.jsonl", json_lines(0, kDocuments)},
                                           {"books.txt", paragraphs(kDocuments, kDocuments)}});
    succeeds({"tokenizer", "train", "--out", "t.model", "--vocab-size", std::to_string(kVocabulary),
              "wiki.jsonl", "books.txt"});
    succeeds({"data", "build", "--tokenizer", "t.model", "--out", "wiki", "--held-out", "0.1", "wiki.jsonl"});
    succeeds({"data", "build", "--tokenizer", "t.model", "--out", "books", "--held-out", "0.1", "--split",
              "blank-lines", "books.txt"});
  }
  static void TearDownTestSuite() { shared_folder.reset(); }

  static fs::path path(const std::string& name) { return shared_folder->path() / name; }

  /// redllm ARGS on these ranks; 0: without a launcher.
  static ChildResult run(const std::vector<std::string>& args, int num_ranks = 0) {
    std::vector<std::string> command;
    if (num_ranks > 0) command = {RED_SOURCE_DIR "/launch/local.sh", "-n", std::to_string(num_ranks)};
    command.emplace_back(RED_BINARY_DIR "/redllm");
    command.insert(command.end(), args.begin(), args.end());
    return run_child(command, shared_folder->path(), kDeadline);
  }
  /// The same, which must end well; what it printed.
  static std::string succeeds(const std::vector<std::string>& args, int num_ranks = 0) {
    const ChildResult result = run(args, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(args) << "\n" << result.err;
    return result.out;
  }

  /// The folder of a run of kSteps, made when it is first asked for: "red" on 2 x (1 + 1) ranks, "dec" on 2.
  static std::string trained(const std::string& kind) {
    std::string run_dir = "run-" + kind;
    if (!fs::exists(path(run_dir))) succeeds(training(kind, run_dir), ranks_of(kind));
    return run_dir;
  }
  static std::vector<std::string> training(const std::string& kind, const std::string& run_dir) {
    std::vector<std::string> args = {"train", "--config", kind + ".ini", "--train.run_dir=" + run_dir,
                                     "--parallel.data=2"};
    if (kind == "red") args.emplace_back("--parallel.encoder_stages=1");
    return args;
  }
  static int ranks_of(const std::string& kind) { return kind == "red" ? 4 : 2; }

  static std::vector<json> metrics_of(const std::string& run_dir) {
    std::istringstream lines(read_bytes(path(run_dir) / "metrics.jsonl"));
    std::vector<json> metrics;
    for (std::string line; std::getline(lines, line);) metrics.push_back(json::parse(line));
    return metrics;
  }

 private:
  static std::string paragraphs(uint64_t first, uint64_t count) {
    std::string text;
    for (uint64_t i = first; i < first + count; ++i) text += document(i) + "\n\n";
    return text;
  }

  inline static std::unique_ptr<WorkingDirectory> shared_folder;
};

TEST_F(ProgramTest, TokenizerLosesNothing) {
  const std::string text = read_bytes(path("books.txt")) +
                           "\n\n  two  spaces, a\ttab, [EOD] <s> </s>, 日本語, \U0001F600, \r\n no newline";
  write_bytes(path("all.txt"), text);
  const std::string ids = succeeds({"tokenizer", "encode", "--tokenizer", "t.model", "all.txt"});
  write_bytes(path("ids.txt"), ids);
  std::istringstream words(ids);
  int64_t count = 0;
  for (int id = 0; words >> id; ++count) EXPECT_TRUE(id >= 0 && id < kVocabulary) << id;
  EXPECT_LT(3 * count, static_cast<int64_t>(text.size()));  // pieces, not bytes
  EXPECT_TRUE(succeeds({"tokenizer", "decode", "--tokenizer", "t.model", "ids.txt"}) == text);
}

TEST_F(ProgramTest, TokenFilesHoldAllDocuments) {
  const std::string verified = succeeds(
      {"data", "verify", "--tokenizer", "t.model", "wiki", "wiki_heldout", "books", "books_heldout"});
  EXPECT_EQ(std::count(verified.begin(), verified.end(), '\n'), 4) << verified;
  for (const std::string name : {"wiki", "books"}) {
    const json sidecar = json::parse(read_bytes(path(name + "_text_document.json")));
    const json held_out = json::parse(read_bytes(path(name + "_heldout_text_document.json")));
    EXPECT_EQ(sidecar.at("documents").get<int>() + held_out.at("documents").get<int>(), kDocuments);
    EXPECT_GT(held_out.at("documents"), 0);
    EXPECT_EQ(fs::file_size(path(name + "_text_document.bin")), 2 * sidecar.at("tokens").get<uint64_t>());
  }
  const std::string shown =
      succeeds({"data", "show", "--tokenizer", "t.model", "--window", "64", "--sample", "5", "wiki"});
  EXPECT_NE(shown.find("[EOD]"), std::string::npos) << shown;
}

class ProgramTestOf : public ProgramTest, public testing::WithParamInterface<std::string> {};

TEST_P(ProgramTestOf, TrainingLearnsTheText) {
  const std::string run_dir = trained(GetParam());
  const std::vector<json> metrics = metrics_of(run_dir);
  ASSERT_EQ(metrics.size(), kSteps);
  for (int i = 0; i < kSteps; ++i) {
    EXPECT_EQ(metrics[i].at("step"), i + 1);
    EXPECT_EQ(metrics[i].at("first_sample"), i * kBatch);
    EXPECT_EQ(metrics[i].at("targets"), kBatch * (GetParam() == "red" ? kWindow / 2 : kWindow));
    EXPECT_TRUE(metrics[i].at("applied").get<bool>());
  }
  const double first = metrics.front().at("cross_entropy"), last = metrics.back().at("cross_entropy");
  EXPECT_NEAR(first, std::log(kVocabulary), 2.0);  // as good as guessing
  EXPECT_LT(last, first - 1.5);
  EXPECT_TRUE(fs::exists(path(run_dir) / "configuration.ini"));
}

TEST_P(ProgramTestOf, TheSameCommandGoesOnWithTheRun) {
  const std::string run_dir = "more-" + GetParam();
  fs::copy(path(trained(GetParam())), path(run_dir), fs::copy_options::recursive);
  std::vector<std::string> args = training(GetParam(), run_dir);
  args.push_back("--train.steps=" + std::to_string(kMoreSteps));
  const ChildResult result = run(args, ranks_of(GetParam()));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("resuming"), std::string::npos) << result.err;
  const std::size_t plan = result.err.find("memory: ");
  EXPECT_LT(plan, result.err.find("resuming")) << result.err;
  EXPECT_EQ(result.err.find("memory: ", plan + 1), std::string::npos) << result.err;  // one rank says it
  const std::vector<json> before = metrics_of(trained(GetParam())), metrics = metrics_of(run_dir);
  ASSERT_EQ(metrics.size(), kMoreSteps);
  for (int i = 0; i < kMoreSteps; ++i) EXPECT_EQ(metrics[i].at("step"), i + 1);
  EXPECT_EQ(metrics[kSteps - 1].dump(), before.back().dump());
  EXPECT_EQ(metrics[kSteps].at("first_sample"), kSteps * kBatch);
  // As good as before the stop: no parameter was lost.
  EXPECT_NEAR(metrics[kSteps].at("loss").get<double>(), metrics[kSteps - 1].at("loss").get<double>(), 0.5);
  // Once more there is nothing to do.
  EXPECT_NE(run(args, ranks_of(GetParam())).err.find("nothing to do"), std::string::npos);
}

TEST_F(ProgramTest, APrecisionStaysWithItsRun) {
  std::vector<std::string> args = training("dec", "run-bf16");
  args.emplace_back("--train.precision=bf16");
  succeeds(args, ranks_of("dec"));
  const auto configuration = [] { return read_bytes(path("run-bf16") / "configuration.ini"); };
  EXPECT_NE(configuration().find("precision = bf16"), std::string::npos) << configuration();
  const double fp32 = metrics_of(trained("dec")).back().at("cross_entropy");
  EXPECT_NEAR(metrics_of("run-bf16").back().at("cross_entropy").get<double>(), fp32, 0.1);
  // Without a word about it the run goes on as it was; by the user's word it changes, and says so.
  args.back() = "--train.steps=" + std::to_string(kMoreSteps);
  const ChildResult same = run(args, ranks_of("dec"));
  EXPECT_EQ(same.exit_code, 0) << same.err;
  EXPECT_NE(same.err.find("per rank, bf16, matrix products by"), std::string::npos) << same.err;
  EXPECT_NE(configuration().find("precision = bf16"), std::string::npos) << configuration();
  args.back() = "--train.steps=" + std::to_string(kMoreSteps + 1);
  args.emplace_back("--train.precision=fp32");
  const ChildResult changed = run(args, ranks_of("dec"));
  EXPECT_EQ(changed.exit_code, 0) << changed.err;
  EXPECT_NE(changed.err.find("resume: train.precision = fp32, in the checkpoint bf16"), std::string::npos)
      << changed.err;
}

TEST_P(ProgramTestOf, PerplexityIsTheSameOnAnyRanks) {
  const std::string run_dir = trained(GetParam());
  const std::vector<std::string> args = {"eval", "perplexity", "--checkpoint", run_dir, "--json"};
  const json one = json::parse(succeeds(args));
  EXPECT_EQ(one.at("step"), kSteps);
  EXPECT_EQ(one.at("sources").size(), 2U);
  std::vector<std::string> on_stages = args;
  if (GetParam() == "red")
    on_stages.insert(on_stages.end(), {"--parallel.data=1", "--parallel.encoder_stages=1"});
  const json two = json::parse(succeeds(on_stages, 2));
  for (const auto& [name, source] : one.at("sources").items()) {
    const double nats = source.at("nats_per_token");
    EXPECT_LT(nats, std::log(kVocabulary) - 1.0) << name;  // text it has not seen
    EXPECT_NEAR(source.at("perplexity").get<double>(), std::exp(nats), 1e-9 * std::exp(nats));
    EXPECT_EQ(source.at("targets"), source.at("windows").get<int>() * kWindow / 2);
    const json& other = two.at("sources").at(name);
    EXPECT_EQ(other.at("windows"), source.at("windows"));
    EXPECT_EQ(other.at("all_targets"), source.at("all_targets"));
    EXPECT_NEAR(other.at("nats_per_token").get<double>(), nats, 1e-6);  // another order of fp64 sums
  }
  const std::string table = succeeds({"eval", "perplexity", "--checkpoint", run_dir, "--max-windows", "2"});
  for (const char* word : {"wiki", "books", "average"})
    EXPECT_NE(table.find(word), std::string::npos) << table;
}

TEST_P(ProgramTestOf, GenerationRepeats) {
  const std::vector<std::string> greedy = {
      "generate", "--checkpoint", trained(GetParam()), "--prompt", "The old river", "--max-tokens", "12"};
  const std::string continuation = succeeds(greedy);
  EXPECT_GT(continuation.size(), 1U);
  EXPECT_EQ(continuation.back(), '\n');
  EXPECT_EQ(succeeds(greedy, 2), continuation);
  std::vector<std::string> sampled = greedy;
  sampled.insert(sampled.end(), {"--temperature", "1.5", "--top-k", "100", "--top-p", "0.95", "--seed", "5"});
  const std::string sample = succeeds(sampled);
  EXPECT_NE(sample, continuation);
  EXPECT_EQ(succeeds(sampled), sample);
  sampled.back() = "6";
  EXPECT_NE(succeeds(sampled), sample);
}

TEST_P(ProgramTestOf, PromptsMayBeManyAndLongerThanAWindow) {
  write_bytes(path("long.txt"), document(7) + document(8));
  const std::string text =
      succeeds({"generate", "--checkpoint", trained(GetParam()), "--prompt", "A", "--prompt-file", "long.txt",
                "--prompt", "The quiet garden", "--max-tokens", "3"});
  for (const char* head : {"--- prompt 1\n", "--- prompt 2\n", "--- prompt 3\n"})
    EXPECT_NE(text.find(head), std::string::npos) << text;
}

TEST_P(ProgramTestOf, GenerationAsJsonIsTheSameInAnyBatch) {
  write_bytes(path("prompts.txt"), "A\nThe quiet garden of the old river\r\nThe old");
  write_bytes(path("prompts.jsonl"),
              "{\"text\": \"A\"}\n{\"prompt\": \"The quiet garden of the old river\"}\n");
  const std::vector<std::string> args = {"generate", "--checkpoint", trained(GetParam()), "--max-tokens",
                                         "5",        "--json",       "--prompts"};
  const auto lines_of = [&](std::vector<std::string> more, int num_ranks = 0) {
    std::vector<std::string> all = args;
    all.insert(all.end(), more.begin(), more.end());
    std::istringstream text(succeeds(all, num_ranks));
    std::vector<json> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
    return lines;
  };
  const std::vector<json> lines = lines_of({"prompts.txt"});
  ASSERT_EQ(lines.size(), 3U);
  EXPECT_EQ(lines[1].at("prompt"), "The quiet garden of the old river");
  for (const json& line : lines) {
    const std::size_t num_new = line.at("tokens").size();
    EXPECT_EQ(line.at("new_tokens"), num_new);
    EXPECT_EQ(line.at("finish_reason"), num_new < 5 ? "stop" : "length");
    EXPECT_GT(line.at("prompt_tokens"), 0);
    EXPECT_TRUE(line.at("continuation").is_string());
  }
  EXPECT_EQ(lines_of({"prompts.txt", "--batch", "1"}), lines);
  EXPECT_EQ(lines_of({"prompts.txt", "--batch", "2"}, 2), lines);
  EXPECT_EQ(lines_of({"prompts.jsonl", "--batch", "100"}),
            std::vector<json>(lines.begin(), lines.begin() + 2));
}

TEST_P(ProgramTestOf, InspectionShowsTheWholeModel) {
  const json shown =
      json::parse(succeeds({"inspect", "checkpoint", trained(GetParam()), "--json", "--tensors"}));
  EXPECT_EQ(shown.at("step"), kSteps);
  EXPECT_EQ(shown.at("sample_cursor"), kSteps * kBatch);
  EXPECT_EQ(shown.at("shard_files").size(), static_cast<std::size_t>(ranks_of(GetParam())));
  EXPECT_EQ(shown.at("model").at("d_model"), "64");
  int64_t parameters = 0, moments = 0;
  for (const json& tensor : shown.at("tensors")) {
    const std::string name = tensor.at("name");
    EXPECT_EQ(tensor.at("num_nan"), 0) << name;
    EXPECT_EQ(tensor.at("num_infinite"), 0) << name;
    EXPECT_GT(tensor.at("rms"), 0.0) << name;
    int64_t elements = 1;
    for (const json& extent : tensor.at("shape")) elements *= extent.get<int64_t>();
    (name.starts_with("parameters/") ? parameters : moments) += elements;
  }
  // Embedding, final gains, and per layer: gains, attention, feed-forward.
  const int64_t d = 64, f = 128, attention = 4 * d * d + d, ffn = 3 * d * f + d;
  const int64_t dec = kVocabulary * d + d + attention + ffn;
  EXPECT_EQ(parameters, GetParam() == "dec" ? dec : dec + attention + d + attention + ffn);
  EXPECT_EQ(moments, parameters);  // unfactored
  const std::string table = succeeds({"inspect", "checkpoint", trained(GetParam())});
  EXPECT_NE(table.find("samples      320 consumed"), std::string::npos) << table;
}

INSTANTIATE_TEST_SUITE_P(Kinds, ProgramTestOf, testing::Values("red", "dec"),
                         [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace red::test

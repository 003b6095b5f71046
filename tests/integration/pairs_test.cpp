// Instruction tuning as a user runs it: pairs of inputs and targets are built, checked, shown, trained on in
// several layouts, resumed, validated, scored and generated from.
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.hpp"
#include "integration/child_process.hpp"
#include "integration/plain_text.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

constexpr int kVocabulary = 400, kPairs = 150, kSteps = 12, kBatch = 16;

/// Inputs and targets are beginnings of the same sentence, of different lengths; one pair has no inputs.
std::string inputs_of(int pair) {
  return pair == 7 ? ""
                   : "Repeat the end: " + sentence(static_cast<uint64_t>(pair)).substr(0, 12 + pair % 20);
}
std::string targets_of(int pair) {
  const std::string text = sentence(static_cast<uint64_t>(pair));
  return text.substr(0, 3 + pair % 11);
}
std::string pair_lines(int count) {
  std::string lines;
  for (int i = 0; i < count; ++i)
    lines += json{{"inputs", inputs_of(i)}, {"targets", targets_of(i)}, {"task", "repeat"}}.dump() + "\n";
  return lines;
}

const std::string kConfig = R"([model]
name = small
vocab_size = 400
d_model = 32
d_ff = 64
num_heads = 2
head_dim = 16
decoder_layers = 1
[train]
steps = 12
global_batch = 16
micro_batch = 2
threads = 1
validate_every = 6
precision = fp32
[schedule]
kind = constant
peak = 0.02
warmup_steps = 2
[data]
tokenizer = t.model
samples = pairs
input_length = 24
target_length = 8
block = 16
[data.source.tasks]
tokens = tasks
held_out = tasks_heldout
[data.source.more]
tokens = more
weight = 2
)";

class PairsTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_folder = std::make_unique<WorkingDirectory>(std::map<std::string, std::string>{
        {"wiki.jsonl", json_lines(0, 60)}, {"pairs.jsonl", pair_lines(kPairs)}});
    for (const char* kind : {"red", "dec"}) {
      std::string text = kConfig;
      const bool red = std::string(kind) == "red";
      const auto put = [&text](const std::string& behind, const std::string& line) {
        text.insert(text.find(behind) + behind.size(), line);
      };
      put("[model]\n", red ? "kind = red\nencoder_layers = 1\n" : "kind = dec\n");
      if (!red) put("[data]\n", "bidirectional_input = yes\n");
      write_bytes(path(std::string(kind) + ".ini"), text);
    }
    succeeds({"tokenizer", "train", "--out", "t.model", "--vocab-size", std::to_string(kVocabulary),
              "wiki.jsonl"});
    built = succeeds(build("tasks", {"--held-out", "0.2"}));
    succeeds(build("more", {"--seed", "2"}));
  }
  static void TearDownTestSuite() { shared_folder.reset(); }

  static Words build(const std::string& out, const Words& more = {},
                     const std::string& file = "pairs.jsonl") {
    Words args = {"data", "build", "--pairs", "--tokenizer", "t.model", "--out", out, file};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  static fs::path path(const std::string& name) { return shared_folder->path() / name; }
  static ChildResult run(const Words& args, int num_ranks = 0) {
    Words command;
    if (num_ranks > 0) command = {RED_SOURCE_DIR "/launch/local.sh", "-n", std::to_string(num_ranks)};
    command.emplace_back(RED_BINARY_DIR "/redllm");
    command.insert(command.end(), args.begin(), args.end());
    return run_child(command, shared_folder->path(), 120);
  }
  static std::string succeeds(const Words& args, int num_ranks = 0) {
    const ChildResult result = run(args, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(args) << "\n" << result.err;
    return result.out;
  }
  static void train(const std::string& kind, const std::string& run_dir, int num_ranks = 0,
                    const Words& more = {}) {
    Words args = {"train", "--config", kind + ".ini", "--train.run_dir=" + run_dir};
    args.insert(args.end(), more.begin(), more.end());
    succeeds(args, num_ranks);
  }
  static std::vector<json> metrics_of(const std::string& run_dir) {
    std::istringstream lines(read_bytes(path(run_dir) / "metrics.jsonl"));
    std::vector<json> metrics;
    for (std::string line; std::getline(lines, line);) metrics.push_back(json::parse(line));
    return metrics;
  }
  /// The run of kSteps on one rank.
  static std::string trained(const std::string& kind) {
    if (!fs::exists(path("run-" + kind))) train(kind, "run-" + kind);
    return "run-" + kind;
  }
  static json perplexity(const std::string& run_dir) {
    return json::parse(succeeds({"eval", "perplexity", "--checkpoint", run_dir, "--json"}));
  }

  inline static std::unique_ptr<WorkingDirectory> shared_folder;
  inline static std::string built;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST_F(PairsTest, AreBuiltCheckedAndShown) {
  EXPECT_TRUE(contains(built, "tasks_text_document: 120 documents, ")) << built;
  EXPECT_TRUE(contains(built, "tasks_heldout_text_document: 30 documents, ")) << built;
  const json sidecar = json::parse(read_bytes(path("tasks_text_document.json")));
  EXPECT_EQ(sidecar.at("build").at("field"), "inputs");
  EXPECT_EQ(sidecar.at("build").at("targets_field"), "targets");
  const std::string verified =
      succeeds({"data", "verify", "--tokenizer", "t.model", "tasks", "tasks_heldout"});
  EXPECT_TRUE(contains(verified, "tasks_text_document: whole; 120 pairs, ")) << verified;
  succeeds(build("inorder", {"--no-shuffle"}));
  for (const int pair : {0, 7, kPairs - 1}) {
    const std::string shown =
        succeeds({"data", "show", "--tokenizer", "t.model", "--at", std::to_string(pair), "inorder"});
    EXPECT_TRUE(contains(shown, fmt::format("--- pair {0}, inputs\n{1}\n--- pair {0}, targets\n{2}[EOD]\n",
                                            pair, inputs_of(pair), targets_of(pair))))
        << shown;
  }
  const ChildResult beyond = run({"data", "show", "--tokenizer", "t.model", "--at", "150", "inorder"});
  EXPECT_EQ(beyond.exit_code, 2);
  EXPECT_TRUE(contains(beyond.err, "--at 150: inorder_text_document has 150 pairs, counted from 0"))
      << beyond.err;
}

TEST_F(PairsTest, BadLinesAndOptionsAreNamed) {
  const std::string good = R"({"inputs":"a","targets":"b"})"
                           "\n";
  write_bytes(path("bad.jsonl"), good +
                                     R"({"inputs":"a","targets":""})"
                                     "\n" +
                                     good +
                                     R"({"inputs":"a"})"
                                     "\n");
  const auto fails = [](const Words& args, int code, const std::string& message) {
    const ChildResult result = run(args);
    EXPECT_EQ(result.exit_code, code) << result.err;
    EXPECT_TRUE(contains(result.err, message)) << result.err;
  };
  fails(build("x", {}, "bad.jsonl"), 3, "bad.jsonl:2: its field \"targets\" is empty");
  fails(build("x", {"--max-bad-lines=1"}, "bad.jsonl"), 3, "bad.jsonl:4: has no field \"targets\"");
  EXPECT_TRUE(
      contains(succeeds(build("x", {"--max-bad-lines=2"}, "bad.jsonl")), "x_text_document: 2 documents"));
  fails(build("x", {"--targets-field=task", "--inputs-field=question"}), 3, "has no field \"question\"");
  fails(build("x", {"--field=text"}), 2, "--field is for texts");
  fails(build("x", {"--format=text"}), 2, "pairs are lines of JSON");
  fails(build("x", {"--targets-field=inputs"}), 2, "both the field 'inputs'");
  fails({"data", "build", "--tokenizer", "t.model", "--out", "x", "--targets-field=a", "pairs.jsonl"}, 2,
        "--targets-field is for --pairs");
  fails({"train", "--config", "red.ini", "--train.run_dir=x", "--data.document_mask=yes"}, 2,
        "data.document_mask = yes: a pair is one document");
}

TEST_F(PairsTest, TextIsNoPairsAndPairsAsTextAreTold) {
  succeeds({"data", "build", "--tokenizer", "t.model", "--out", "wiki", "wiki.jsonl"});
  const ChildResult text =
      run({"train", "--config", "red.ini", "--train.run_dir=x", "--data.source.tasks.tokens=wiki"});
  EXPECT_EQ(text.exit_code, 3);
  EXPECT_TRUE(contains(text.err, "wiki_text_document.idx: document 0 has 1 sequences, a pair has two"))
      << text.err;
  const ChildResult windows = run({"train", "--config", "red.ini", "--train.run_dir=y",
                                   "--data.samples=windows", "--data.window=16", "--train.steps=2"});
  EXPECT_EQ(windows.exit_code, 0) << windows.err;
  EXPECT_TRUE(contains(windows.err, "source tasks: tasks_text_document.bin holds pairs")) << windows.err;
}

class PairsTestOf : public PairsTest, public testing::WithParamInterface<std::string> {};

TEST_P(PairsTestOf, TrainingLearnsTheTargetsInAnyLayout) {
  const std::string kind = GetParam();
  const std::vector<json> alone = metrics_of(trained(kind));
  ASSERT_EQ(alone.size(), static_cast<std::size_t>(kSteps));
  EXPECT_LT(alone.back().at("cross_entropy").get<double>(),
            alone.front().at("cross_entropy").get<double>() - 1.0);
  // Another layout, another micro-batch, and so other tokens in each pass.
  const bool red = kind == "red";
  train(kind, "other-" + kind, red ? 4 : 2,
        {"--parallel.data=2", red ? "--parallel.encoder_stages=1" : "--parallel.tensor=1",
         "--train.micro_batch=1"});
  const std::vector<json> other = metrics_of("other-" + kind);
  ASSERT_EQ(other.size(), alone.size());
  for (std::size_t i = 0; i < alone.size(); ++i) {
    EXPECT_EQ(other[i].at("sample_digest"), alone[i].at("sample_digest"));
    EXPECT_EQ(other[i].at("targets"), alone[i].at("targets"));
    EXPECT_LT(alone[i].at("targets"), kBatch * 8);
    // The first step sums the same numbers in another order; later ones lie behind sign-like updates.
    EXPECT_NEAR(other[i].at("loss").get<double>(), alone[i].at("loss").get<double>(), i == 0 ? 1e-5 : 1e-2);
  }
}

TEST_P(PairsTestOf, AResumeGoesOnBitForBit) {
  const std::string kind = GetParam(), run_dir = "halves-" + kind;
  train(kind, run_dir, 0, {"--train.steps=5"});
  train(kind, run_dir);
  const std::vector<json> halves = metrics_of(run_dir), whole = metrics_of(trained(kind));
  for (const char* key : {"loss", "sample_digest", "gradient_norm", "first_sample", "targets"})
    EXPECT_EQ(halves.back().at(key), whole.back().at(key)) << key;
}

TEST_P(PairsTestOf, HeldOutPairsAreScoredOnTheirTargets) {
  const json result = perplexity(trained(GetParam())).at("sources").at("tasks");
  // Both models predict the same: each target token that is kept, and </s>.
  int64_t targets = 0;
  for (int pair = 0; pair < 30; ++pair) {
    const std::string shown =
        succeeds({"data", "show", "--tokenizer", "t.model", "--at", std::to_string(pair), "tasks_heldout"});
    const std::string mark = fmt::format("--- pair {}, targets\n", pair);
    std::string text = shown.substr(shown.find(mark) + mark.size());
    write_bytes(path("target.txt"), text.substr(0, text.find("[EOD]")));
    std::istringstream ids(succeeds({"tokenizer", "encode", "--tokenizer", "t.model", "target.txt"}));
    int64_t count = 0;
    for (int id = 0; ids >> id;) ++count;
    targets += std::min<int64_t>(count, 7) + 1;
  }
  EXPECT_EQ(result.at("windows"), 30);
  EXPECT_EQ(result.at("targets"), targets);
  EXPECT_EQ(result.at("all_targets"), targets);
  // Validation saw the same pairs with the same parameters.
  const json validation = metrics_of(trained(GetParam())).back().at("validation").at("tasks");
  EXPECT_EQ(validation.at("targets"), targets);
  EXPECT_NEAR(validation.at("loss").get<double>(), result.at("nats_per_token").get<double>(), 1e-5);
}

TEST_P(PairsTestOf, GenerationClosesThePromptAsTrainingDid) {
  const Words generate = {"generate", "--checkpoint", trained(GetParam()),
                          "--prompt", inputs_of(3),   "--max-tokens",
                          "8",        "--json"};
  const json result = json::parse(succeeds(generate));
  write_bytes(path("prompt.txt"), inputs_of(3));
  std::istringstream ids(succeeds({"tokenizer", "encode", "--tokenizer", "t.model", "prompt.txt"}));
  int64_t count = 0;
  for (int id = 0; ids >> id;) ++count;
  EXPECT_EQ(result.at("prompt_tokens"), count + 1);
}

// The way of the recipe: text first, then pairs, with the optimizer's state.
TEST_P(PairsTestOf, TuningBeginsFromPretrainedParameters) {
  const std::string kind = GetParam();
  if (!fs::exists(path("wiki_text_document.idx")))
    succeeds({"data", "build", "--tokenizer", "t.model", "--out", "wiki", "wiki.jsonl"});
  Words text = {"--data.samples=windows", "--data.window=32", "--train.steps=30", "--train.validate_every=0"};
  for (const char* source : {"tasks", "more"})
    text.push_back(fmt::format("--data.source.{}.tokens=wiki", source));
  train(kind, "pretrained-" + kind, 0, text);
  train(kind, "tuned-" + kind, 2,
        {"--parallel.data=2", "--train.micro_batch=1", "--checkpoint.initialize_from=pretrained-" + kind});
  train(kind, "reset-" + kind, 0,
        {"--checkpoint.initialize_from=pretrained-" + kind, "--checkpoint.optimizer_state=reset"});
  const std::vector<json> tuned = metrics_of("tuned-" + kind), reset = metrics_of("reset-" + kind),
                          alone = metrics_of(trained(kind));
  ASSERT_EQ(tuned.size(), static_cast<std::size_t>(kSteps));
  EXPECT_EQ(tuned.front().at("step"), 1);
  EXPECT_EQ(tuned.front().at("sample_digest"), alone.front().at("sample_digest"));
  const auto loss = [](const json& step) { return step.at("cross_entropy").get<double>(); };
  // The first loss is that of the parameters alone, the second that of an update with another state.
  EXPECT_NEAR(loss(tuned[0]), loss(reset[0]), 1e-5);
  EXPECT_GT(std::abs(loss(tuned[0]) - loss(alone[0])), 1e-3);
  EXPECT_GT(std::abs(loss(tuned[1]) - loss(reset[1])), 1e-3);
  EXPECT_LT(loss(tuned.back()), loss(tuned.front()) - 1.0);
}

INSTANTIATE_TEST_SUITE_P(Models, PairsTestOf, testing::Values("red", "dec"),
                         [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace red::test

// The whole way of a user who trains here and evaluates elsewhere: text, tokenizer, training, export;
// Transformers' tokenizer and generation; lm-evaluation-harness; and back.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "convert/python_environment.hpp"
#include "data/tokenizer.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kTextScript = RED_SOURCE_DIR "/launch/quickstart_text.py";
constexpr int kLines = 10000, kPrompts = 50, kRequests = 100;

const std::string kRun = R"(vocab_size = 1000
d_model = 64
d_ff = 128
num_heads = 2
head_dim = 32
decoder_layers = 2
[train]
steps = 150
global_batch = 16
micro_batch = 8
threads = 1
precision = fp32
[schedule]
kind = constant
peak = 0.02
warmup_steps = 10
[data]
tokenizer = t.model
window = 128
)";

std::string source(const std::string& name) {
  return "[data.source." + name + "]\ntokens = " + name + "\n";
}

/// What else the RedLLM that learns from pairs is told; its inputs end with </s>.
const std::string kPairs = "samples = pairs\ninput_length = 48\ntarget_length = 40\n";

std::vector<json> pairs_of(const std::vector<std::string>& texts) {
  std::vector<json> pairs;
  for (const std::string& text : texts) {
    const std::size_t cut = text.find(' ', text.size() / 3), end = text.find(' ', text.size() / 2);
    if (end != std::string::npos && end > cut)
      pairs.push_back({{"inputs", text.substr(0, cut)}, {"targets", text.substr(cut, end - cut)}});
  }
  return pairs;
}

class ConvertProgramTest : public testing::Test {
 protected:
  /// Real text, a tokenizer of it, and two models that have learnt a little; made once.
  static void SetUpTestSuite() {
    if (!fs::exists(kConvertPython / "installed")) return;
    const std::string sources = source("bible") + source("headers");
    shared_folder = std::make_unique<WorkingDirectory>(std::map<std::string, std::string>{
        {"red.ini", "[model]\nkind = red\nencoder_layers = 2\n" + kRun + sources},
        {"dec.ini", "[model]\nkind = dec\n" + kRun + sources},
        {"pairs.ini", "[model]\nkind = red\nencoder_layers = 2\n" + kRun + kPairs + source("pairs")}});
    const ChildResult text =
        run_child({"/usr/bin/python3", kTextScript, "--out", ".", "--mib", "0.5"}, shared_folder->path());
    has_text = text.exit_code == 0;
    if (!has_text) return;
    succeeds({"tokenizer", "train", "--out", "t.model", "--vocab-size", "1000", "bible.jsonl",
              "headers.jsonl", "foldoc.jsonl"});
    for (const std::string name : {"bible", "headers"})
      succeeds({"data", "build", "--tokenizer", "t.model", "--out", name, name + ".jsonl"});
    write_lines("pairs.jsonl", pairs_of(texts_of("bible")));
    succeeds({"data", "build", "--tokenizer", "t.model", "--out", "pairs", "--pairs", "pairs.jsonl"});
    for (const std::string kind : {"red", "dec", "pairs"}) {
      succeeds({"train", "--config", kind + ".ini", "--train.run_dir=run-" + kind});
      succeeds({"convert", "to-huggingface", "--checkpoint", "run-" + kind, "--out", kind});
    }
  }
  static void TearDownTestSuite() { shared_folder.reset(); }

  static fs::path path(const std::string& name) { return shared_folder->path() / name; }
  static ChildResult run(const std::vector<std::string>& args, int num_ranks = 0) {
    std::vector<std::string> command;
    if (num_ranks > 0) command = {RED_SOURCE_DIR "/launch/local.sh", "-n", std::to_string(num_ranks)};
    command.emplace_back(RED_BINARY_DIR "/redllm");
    command.insert(command.end(), args.begin(), args.end());
    return run_child(command, shared_folder->path(), 240);
  }
  static std::string succeeds(const std::vector<std::string>& args, int num_ranks = 0) {
    const ChildResult result = run(args, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(args) << "\n" << result.err;
    return result.out;
  }

  void SetUp() override {
    if (!has_convert_python()) GTEST_SKIP() << kNoConvertPython;
    if (!has_text) GTEST_SKIP() << "the packages with text are not installed: launch/packages.sh text";
  }

  static std::vector<std::string> texts_of(const std::string& name) {
    std::istringstream lines(read_bytes(path(name + ".jsonl")));
    std::vector<std::string> texts;
    for (std::string line; std::getline(lines, line);) texts.push_back(json::parse(line).at("text"));
    return texts;
  }

  /// kLines lines of all sources, and some that are made to be difficult.
  static std::vector<std::string> text_lines() {
    std::vector<std::string> result = {"<s>",
                                       "</s> [EOD] <pad> <unk>",
                                       "\u2581 a\u2581\u2581b",
                                       "  two  spaces ",
                                       "\t\t\r\n\n",
                                       std::string("a\0b", 3),
                                       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                       "\U0001F600\u0301 naïve \uFB01",
                                       "<0x0A> <0xE2>",
                                       "\u2028\u00A0\u3000"};
    for (const std::string name : {"bible", "perl", "foldoc", "wordnet", "headers"}) {
      int taken = 0;
      for (const std::string& text : texts_of(name)) {
        std::istringstream lines(text);
        for (std::string line; taken < kLines / 5 && std::getline(lines, line);) {
          if (line.empty()) continue;
          result.push_back(line);
          ++taken;
        }
      }
    }
    return result;
  }

  static void write_lines(const std::string& name, const std::vector<json>& lines) {
    std::string text;
    for (const json& line : lines) text += line.dump() + "\n";
    write_bytes(path(name), text);
  }

  static std::vector<std::string> prompts() {
    std::vector<std::string> result;
    for (const std::string& text : texts_of("bible")) {
      if (text.size() < 200 || result.size() == kPrompts) continue;
      // Of different lengths; cut at a space, so that characters stay whole.
      result.push_back(text.substr(0, text.find(' ', 20 + 2 * result.size())));
    }
    return result;
  }

  /// The engine's greedy continuations, as check_export.py wants them.
  static void write_continuations(const std::string& kind) {
    std::vector<json> lines;
    for (const std::string& prompt : prompts()) lines.push_back({{"prompt", prompt}});
    ASSERT_EQ(lines.size(), static_cast<std::size_t>(kPrompts));
    write_lines("prompts.jsonl", lines);
    write_bytes(path("continuations-" + kind + ".jsonl"),
                succeeds({"generate", "--checkpoint", "run-" + kind, "--prompts", "prompts.jsonl",
                          "--max-tokens", "24", "--json"}));
  }

  static inline std::unique_ptr<WorkingDirectory> shared_folder;
  static inline bool has_text = false;
};

TEST_F(ConvertProgramTest, TokenizerAndGenerationAreTheEngines) {
  const data::Tokenizer tokenizer(path("t.model"));
  std::vector<json> lines;
  for (const std::string& text : text_lines())
    lines.push_back({{"text", text}, {"ids", tokenizer.encode(text)}});
  ASSERT_GE(lines.size(), static_cast<std::size_t>(kLines));
  write_lines("lines.jsonl", lines);
  for (const std::string kind : {"red", "dec"}) {
    SCOPED_TRACE(kind);
    write_continuations(kind);
    const ChildResult result = run_python(
        "check_export.py", {kind, "lines.jsonl", "continuations-" + kind + ".jsonl"}, shared_folder->path());
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    std::cout << result.out;
    // And back: the export, and what Transformers made of it.
    for (const std::string& from : {kind, kind + "-saved"}) {
      const std::string back = "run-of-" + from;
      succeeds({"convert", "from-huggingface", "--model", from, "--out", back});
      const std::string again = succeeds({"generate", "--checkpoint", back, "--data.tokenizer=t.model",
                                          "--prompts", "prompts.jsonl", "--max-tokens", "24", "--json"});
      EXPECT_EQ(again, read_bytes(path("continuations-" + kind + ".jsonl"))) << from;
    }
  }
}

/// Contexts and continuations of all kinds: short, long, empty, with spaces at the end, cut within a word.
std::vector<json> requests_of(const std::vector<std::string>& texts) {
  std::vector<json> requests;
  for (std::size_t i = 0; requests.size() < kRequests; ++i) {
    const std::string& text = texts[i % texts.size()];
    if (text.size() < 400) continue;
    const std::size_t cut = text.find(' ', 5 + 7 * (i % 40));
    const std::size_t end = text.find(' ', cut + 2 + i % 60);
    if (end == std::string::npos || text.find_first_of("\x80\xc3\xe2", 0) < end) continue;
    const std::size_t begin = i % 3 == 0 ? cut + 1 : i % 3 == 1 ? cut : cut - 1;  // " ", "", and a letter
    requests.push_back({{"context", i % 17 == 0 ? "" : text.substr(0, begin)},
                        {"continuation", text.substr(begin, end - begin)}});
  }
  // Longer than the model's length: cut from the left.
  requests[3] = {{"context", texts[0] + texts[1] + texts[2]}, {"continuation", " And it came to pass"}};
  requests[4]["context"] = requests[4]["context"].get<std::string>() + " \n\t ";
  return requests;
}

TEST_F(ConvertProgramTest, LoglikelihoodsAreTheHarnesss) {
  const std::vector<json> requests = requests_of(texts_of("bible"));
  write_lines("requests.jsonl", requests);
  for (const auto& [kind, backend] :
       {std::pair("red", "seq2seq"), std::pair("dec", "causal"), std::pair("pairs", "seq2seq")}) {
    SCOPED_TRACE(kind);
    const ChildResult harness =
        run_python("harness_loglikelihood.py", {kind, backend, "requests.jsonl"}, shared_folder->path());
    ASSERT_EQ(harness.exit_code, 0) << harness.err;
    std::vector<std::string> layouts = {"", "--parallel.tensor=2"};
    if (std::string(kind) != "dec") layouts.emplace_back("--parallel.encoder_stages=1");
    for (const std::string& layout : layouts) {
      SCOPED_TRACE(layout);
      std::vector<std::string> args = {"eval",         "loglikelihood",
                                       "--checkpoint", std::string("run-") + kind,
                                       "--requests",   "requests.jsonl"};
      if (!layout.empty()) args.push_back(layout);
      std::istringstream ours(succeeds(args, layout.empty() ? 1 : 2)), theirs(harness.out);
      double worst = 0.0;
      int compared = 0;
      for (std::string a, b; std::getline(ours, a) && std::getline(theirs, b); ++compared) {
        const json engine = json::parse(a), other = json::parse(b);
        worst = std::max(worst, std::abs(engine.at("sum").get<double>() - other.at(0).get<double>()));
        EXPECT_EQ(engine.at("is_greedy"), other.at(1)) << requests[compared];
        EXPECT_NEAR(engine.at("sum").get<double>(), other.at(0).get<double>(), 1e-3) << requests[compared];
      }
      EXPECT_EQ(compared, kRequests);
      std::cout << kind << " " << layout << ": " << compared << " log-likelihoods, at most " << worst
                << " apart\n";
    }
  }
}

const char* const kTask = R"(task: local_choice
dataset_path: json
dataset_kwargs:
  data_files:
    test: choice.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
)";

const char* const kWriting = R"(task: local_writing
dataset_path: json
dataset_kwargs:
  data_files:
    test: choice.jsonl
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[label]}}"
generation_kwargs:
  max_gen_toks: 8
  until: ["."]
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
)";

/// Which of two endings a sentence of the Bible has, the engine's answer by its own log-likelihoods.
TEST_F(ConvertProgramTest, TheHarnessEvaluatesTasksOfOnesOwn) {
  std::vector<json> documents, requests;
  const std::vector<json> parts = requests_of(texts_of("bible"));
  for (std::size_t i = 5; i < 25; ++i) {
    const std::string question = "In the beginning" + parts[i].at("continuation").get<std::string>();
    const std::vector<std::string> choices = {" and the earth", " qqzx wvk"};
    documents.push_back({{"question", question}, {"choices", choices}, {"label", i % 4 == 0 ? 1 : 0}});
    for (const std::string& choice : choices)  // the harness puts a space between
      requests.push_back({{"context", question}, {"continuation", " " + choice}});
  }
  write_lines("choice.jsonl", documents);
  write_lines("choice-requests.jsonl", requests);
  write_bytes(path("tasks/choice.yaml"), kTask);
  write_bytes(path("tasks/writing.yaml"), kWriting);
  for (const auto& [kind, backend] : {std::pair("red", "seq2seq"), std::pair("dec", "causal")}) {
    SCOPED_TRACE(kind);
    std::istringstream scores(succeeds({"eval", "loglikelihood", "--checkpoint", std::string("run-") + kind,
                                        "--requests", "choice-requests.jsonl"}));
    double right = 0.0;
    for (const json& document : documents) {
      std::string first, second;
      std::getline(scores, first);
      std::getline(scores, second);
      const int answer =
          json::parse(first).at("sum").get<double>() >= json::parse(second).at("sum").get<double>() ? 0 : 1;
      right += answer == document.at("label").get<int>() ? 1.0 : 0.0;
    }
    const std::string arguments =
        fmt::format("pretrained={},backend={},trust_remote_code=True,dtype=float32", kind, backend);
    const ChildResult result =
        run_offline({(kConvertPython / "bin/lm_eval").string(), "--model", "hf", "--model_args", arguments,
                     "--tasks", "local_choice,local_writing", "--include_path", "tasks", "--batch_size", "8",
                     "--device", "cpu", "--output_path", std::string("results-") + kind},
                    shared_folder->path());
    ASSERT_EQ(result.exit_code, 0) << result.out << result.err;
    json results;
    for (const auto& file : fs::recursive_directory_iterator(path(std::string("results-") + kind))) {
      if (file.path().filename().string().starts_with("results"))
        results = json::parse(read_bytes(file.path()));
    }
    const json& figures = results.at("results");
    EXPECT_DOUBLE_EQ(figures.at("local_choice").at("acc,none").get<double>(),
                     right / static_cast<double>(documents.size()));
    EXPECT_TRUE(figures.at("local_writing").contains("exact_match,none")) << figures;
    std::cout << result.out;
  }
}

TEST_F(ConvertProgramTest, BadInputIsToldWithItsPlace) {
  write_bytes(path("bad.jsonl"), "{\"context\": \"a\", \"continuation\": \"b\"}\n{\"context\": \"a\"}\n");
  ChildResult result = run({"eval", "loglikelihood", "--checkpoint", "run-red", "--requests", "bad.jsonl"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("bad.jsonl:2: needs texts"), std::string::npos) << result.err;
  write_bytes(path("bad.jsonl"), "{\"context_ids\": [5], \"continuation_ids\": [1000]}\n");
  result = run({"eval", "loglikelihood", "--checkpoint", "run-red", "--requests", "bad.jsonl"});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("1000 is no id"), std::string::npos) << result.err;
  result = run({"convert", "to-huggingface", "--checkpoint", "run-red", "--out", "red"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("exists already"), std::string::npos) << result.err;
  result = run({"convert", "to-huggingface", "--checkpoint", "run-red"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("needs --out"), std::string::npos) << result.err;
  result = run({"tokenizer", "train", "--out", "unigram.model", "--vocab-size", "1000", "--algorithm",
                "unigram", "bible.jsonl"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  result = run({"convert", "to-huggingface", "--checkpoint", "run-red", "--tokenizer", "unigram.model",
                "--out", "new"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_NE(result.err.find("is not the one of"), std::string::npos) << result.err;
  EXPECT_FALSE(fs::exists(path("new")));
}

}  // namespace
}  // namespace red::test

// redllm bench: what each benchmark prints, in figures that can be checked.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "integration/child_process.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

using nlohmann::json;

constexpr int kWindow = 64;
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
micro_batch = 2
threads = 1
[data]
window = 64
)";

class BenchTest : public testing::Test {
 protected:
  /// redllm ARGS on these ranks; 0: without a launcher.
  ChildResult run(const std::vector<std::string>& args, int num_ranks = 0) const {
    std::vector<std::string> command;
    if (num_ranks > 0) command = {RED_SOURCE_DIR "/launch/local.sh", "-n", std::to_string(num_ranks)};
    command.emplace_back(RED_BINARY_DIR "/redllm");
    command.insert(command.end(), args.begin(), args.end());
    return run_child(command, folder_.path(), kDeadline);
  }
  /// The same, which must end well; what it printed.
  std::string succeeds(const std::vector<std::string>& args, int num_ranks = 0) const {
    const ChildResult result = run(args, num_ranks);
    EXPECT_EQ(result.exit_code, 0) << testing::PrintToString(args) << "\n" << result.err;
    return result.out;
  }
  static int ranks_of(const std::string& kind) { return kind == "red" ? 4 : 2; }

 private:
  const WorkingDirectory folder_{{{"red.ini", kModel + "kind = red\nencoder_layers = 1\n" + kRun},
                                  {"dec.ini", kModel + "kind = dec\n" + kRun}}};
};

class BenchTestOf : public BenchTest, public testing::WithParamInterface<std::string> {};

TEST_P(BenchTestOf, BenchmarkPrintsOneJsonObject) {
  std::vector<std::string> args = {"bench",
                                   "step",
                                   "--config",
                                   GetParam() + ".ini",
                                   "--json",
                                   "--train.global_batch=4",
                                   "--bench.steps=3",
                                   "--bench.warmup_steps=1",
                                   "--parallel.data=2"};
  if (GetParam() == "red") args.emplace_back("--parallel.encoder_stages=1");
  const std::string line = succeeds(args, ranks_of(GetParam()));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
  const json figures = json::parse(line);
  EXPECT_EQ(figures.at("model"), "small");
  EXPECT_EQ(figures.at("kind"), GetParam());
  EXPECT_EQ(figures.at("ranks"), ranks_of(GetParam()));
  EXPECT_EQ(figures.at("window"), kWindow);
  EXPECT_EQ(figures.at("global_batch"), 4);
  for (const char* text : {"dtype", "layout", "device", "gemm"})
    EXPECT_TRUE(figures.at(text).is_string()) << text;
  for (const char* positive :
       {"parameters", "threads", "micro_batch", "steps", "step_s", "tokens_per_s", "model_gflops_per_s",
        "peak_gflops_per_s", "fma_peak_gflops_per_s", "peak_rss_mib", "loss"})
    EXPECT_GT(figures.at(positive), 0.0) << positive;
  EXPECT_TRUE(figures.contains("peak_share"));
  // The plan, and the matrices in which the peak rate is measured.
  EXPECT_GE(figures.at("peak_device_mib"), figures.at("planned_mib"));
  EXPECT_LE(figures.at("peak_device_mib"), figures.at("planned_mib").get<double>() + 28.0);
  double phases = 0.0;
  for (const auto& [name, seconds] : figures.at("phase_s").items()) phases += seconds.get<double>();
  EXPECT_GT(phases, 0.0);
}

TEST_P(BenchTestOf, GenerationBenchmarkPrintsOneJsonObject) {
  std::vector<std::string> args = {"bench",
                                   "generate",
                                   "--config",
                                   GetParam() + ".ini",
                                   "--json",
                                   "--batch",
                                   "3",
                                   "--prompt-tokens",
                                   "20",
                                   "--new-tokens",
                                   "5",
                                   "--bench.steps=2",
                                   "--bench.warmup_steps=1",
                                   "--parallel.data=2",
                                   "--train.precision=fp32"};
  if (GetParam() == "red") args.emplace_back("--parallel.encoder_stages=1");
  const std::string line = succeeds(args, ranks_of(GetParam()));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1) << line;
  const json figures = json::parse(line);
  EXPECT_EQ(figures.at("kind"), GetParam());
  EXPECT_EQ(figures.at("ranks"), ranks_of(GetParam()));
  EXPECT_EQ(figures.at("batch"), 3);
  EXPECT_EQ(figures.at("prompt_tokens"), 20);
  EXPECT_EQ(figures.at("new_tokens"), 5);
  const auto value = [&](const char* name) { return figures.at(name).get<double>(); };
  // Two data ranks continue three prompts each.
  EXPECT_NEAR(value("prefill_tokens_per_s") * value("prefill_s"), 2 * 3 * 20, 1e-6);
  EXPECT_NEAR(value("decode_tokens_per_s") * value("decode_s"), 2 * 3 * 4, 1e-6);
  EXPECT_NEAR(value("ms_per_token") * 4, 1e3 * value("decode_s"), 1e-6);
  // Keys and values, one layer of 2 heads, fp32; a RedLLM's prompt has those of cross-attention, its
  // decoder 5.
  const double row = 2.0 * 64 * sizeof(float), positions = 3 * (20 + 5);
  EXPECT_NEAR(value("cache_mib") * 1024 * 1024, positions * row, 8192);
  EXPECT_GT(value("peak_rss_mib"), value("cache_mib"));
  const std::string table = succeeds({"bench", "generate", "--config", GetParam() + ".ini", "--new-tokens",
                                      "2", "--bench.steps=1", "--bench.warmup_steps=0"});
  EXPECT_NE(table.find("\ndecode_tokens_per_s "), std::string::npos) << table;
}

TEST_P(BenchTestOf, OpsBenchmarkHasEveryOpOfAStep) {
  const json figures = json::parse(succeeds({"bench", "ops", "--config", GetParam() + ".ini", "--json",
                                             "--seconds", "0.001", "--train.micro_batch=3"}));
  std::set<std::string> names;
  for (const json& op : figures.at("ops")) {
    EXPECT_TRUE(names.insert(op.at("op")).second) << op;
    EXPECT_GT(op.at("us"), 0.0) << op;
    EXPECT_GT(op.at("gb_per_s"), 0.0) << op;
    EXPECT_GT(op.at("share"), 0.0) << op;
  }
  EXPECT_EQ(names.contains("cross-attention, gradients"), GetParam() == "red");
  const auto down = std::find_if(figures.at("ops").begin(), figures.at("ops").end(),
                                 [](const json& op) { return op.at("op") == "decoder, down"; });
  ASSERT_NE(down, figures.at("ops").end());
  const int tokens = 3 * (GetParam() == "red" ? kWindow / 2 : kWindow);
  EXPECT_EQ(down->at("shape"), "m " + std::to_string(tokens) + " n 64 k 128");
  EXPECT_EQ(down->at("runs"), 1);
  EXPECT_NEAR(down->at("gflops_per_s").get<double>() * down->at("us").get<double>(), 2e-3 * tokens * 64 * 128,
              1e-6);
  const std::string table =
      succeeds({"bench", "ops", "--config", GetParam() + ".ini", "--only", "SwiGLU", "--seconds", "0.001"});
  EXPECT_NE(table.find("\ndecoder, SwiGLU, gradient "), std::string::npos) << table;
  EXPECT_EQ(table.find("logits"), std::string::npos) << table;
}

TEST_P(BenchTestOf, OpsBenchmarkHasTheOptimizerThatIsChosen) {
  const json figures = json::parse(
      succeeds({"bench", "ops", "--config", GetParam() + ".ini", "--json", "--only", "Adafactor", "--seconds",
                "0.001", "--optimizer.factored=yes", "--optimizer.min_dim_to_factor=16"}));
  std::vector<std::string> names;
  for (const json& op : figures.at("ops")) names.push_back(op.at("op"));
  EXPECT_EQ(names, (std::vector<std::string>{"factored Adafactor, sums", "factored Adafactor, statistics",
                                             "factored Adafactor, RMS", "factored Adafactor, step",
                                             "Adafactor, state", "Adafactor, step"}));
}

TEST_P(BenchTestOf, CommBenchmarkTimesEveryAxis) {
  std::vector<std::string> args = {
      "bench", "comm",     "--config", GetParam() + ".ini", "--json",         "--from-kib",
      "1",     "--to-mib", "1",        "--parallel.data=2", "--bench.steps=2"};
  if (GetParam() == "red") args.emplace_back("--parallel.encoder_stages=1");
  const json figures = json::parse(succeeds(args, ranks_of(GetParam())));
  std::map<std::string, int> sizes;
  for (const json& row : figures.at("comm")) {
    const std::string operation = row.at("operation");
    ++sizes[operation];
    EXPECT_EQ(row.at("ranks"), 2) << row;
    EXPECT_EQ(row.at("axis"), operation.starts_with("send") ? "pipeline" : "data") << row;
    EXPECT_EQ(row.at("bytes"), 1024 * row.at("kib").get<int64_t>()) << row;
    const double rate = row.at("gb_per_s"), kib = row.at("kib"), us = row.at("us");
    EXPECT_NEAR(rate * us, kib * 1.024, 1e-6 * kib) << row;
    const bool half = row.at("operation") == "reduce-scatter" || row.at("operation") == "all-gather";
    EXPECT_NEAR(row.at("bus_gb_per_s").get<double>(), half ? rate / 2 : rate, 1e-9) << row;
  }
  for (const char* name : {"all-reduce", "reduce-scatter", "all-gather", "broadcast"})
    EXPECT_EQ(sizes[name], 6) << name;  // 1 KiB, 4 KiB, ... 1 MiB
  for (const char* name : {"send to the next stage", "send both ways"})
    EXPECT_EQ(sizes[name], GetParam() == "red" ? 6 : 0) << name;
}

TEST_F(BenchTest, CommBenchmarkTimesTensorRanksAndThreeStages) {
  const std::vector<std::string> sizes = {"--from-kib=4", "--to-mib=1", "--bench.steps=1"};
  const auto operations_of = [&](int num_ranks, std::vector<std::string> args) {
    args.insert(args.end(), sizes.begin(), sizes.end());
    std::map<std::string, std::set<std::string>> operations;
    const json figures = json::parse(succeeds(args, num_ranks));
    for (const json& row : figures.at("comm")) operations[row.at("axis")].insert(row.at("operation"));
    return operations;
  };
  using Names = std::set<std::string>;
  const Names collectives = {"all-reduce", "reduce-scatter", "all-gather", "broadcast"},
              messages = {"send to the next stage", "send both ways"};
  EXPECT_EQ(operations_of(2, {"bench", "comm", "--json", "--config", "dec.ini", "--parallel.tensor=2"}),
            (std::map<std::string, Names>{{"tensor", collectives}}));
  // The middle one has two neighbours.
  EXPECT_EQ(operations_of(3, {"bench", "comm", "--json", "--config", "red.ini", "--model.decoder_layers=2",
                              "--parallel.encoder_stages=1", "--parallel.decoder_stages=2"}),
            (std::map<std::string, Names>{{"pipeline", messages}}));
  const std::string table = succeeds({"bench", "comm", "--config", "dec.ini", "--parallel.data=2",
                                      "--bench.steps=1", "--from-kib=1024", "--to-mib=1"},
                                     2);
  EXPECT_NE(table.find("algo GB/s"), std::string::npos) << table;
  EXPECT_NE(table.find("\nreduce-scatter           data           2      1024 "), std::string::npos) << table;
}

TEST_F(BenchTest, TheOtherDeviceIsTheOtherProgram) {
  const ChildResult result = run({"bench", "step", "--config", "dec.ini", "--device", "cuda"});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_NE(result.err.find("--device cuda: this program computes on the CPU; run redllm-cuda instead"),
            std::string::npos)
      << result.err;
  const json figures = json::parse(succeeds({"bench", "step", "--config", "dec.ini", "--device", "cpu",
                                             "--json", "--bench.steps=1", "--bench.warmup_steps=0"}));
  EXPECT_TRUE(figures.at("mfu").is_null());  // nothing is stated of a CPU, which is no news
  EXPECT_FALSE(figures.contains("no_mfu"));
}

TEST_F(BenchTest, BenchmarksOfNothingAreRefused) {
  const ChildResult no_op = run({"bench", "ops", "--config", "dec.ini", "--only=softmax", "--seconds=0.001"});
  EXPECT_EQ(no_op.exit_code, 2) << no_op.err;
  EXPECT_NE(no_op.err.find("no op has --only 'softmax' in its name"), std::string::npos) << no_op.err;
  const ChildResult alone = run({"bench", "comm", "--config", "dec.ini"});
  EXPECT_EQ(alone.exit_code, 2) << alone.err;
  EXPECT_NE(alone.err.find("bench comm needs two ranks at least"), std::string::npos) << alone.err;
}

INSTANTIATE_TEST_SUITE_P(Kinds, BenchTestOf, testing::Values("red", "dec"),
                         [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace red::test

// redllm plan: every preset, what it prints, and what it refuses.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "integration/child_process.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

using nlohmann::json;

constexpr double kMostSeconds = 1.0;  // about twenty times what an optimised build takes

/// Processor time of the programs run so far: what else the machine does must not matter.
double children_cpu_s() {
  rusage usage{};
  getrusage(RUSAGE_CHILDREN, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

class PlanCommandTest : public testing::Test {
 protected:
  ChildResult run(const std::string& preset, const std::vector<std::string>& more) {
    std::vector<std::string> command = {RED_BINARY_DIR "/redllm", "plan", "--config",
                                        fmt::format("{}/configs/models/{}.ini", RED_SOURCE_DIR, preset)};
    command.insert(command.end(), more.begin(), more.end());
    return run_child(command, folder_.path(), 60);
  }
  json planned(const std::string& preset, std::vector<std::string> more) {
    more.emplace_back("--json");
    const ChildResult result = run(preset, more);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << result.out;
    return json::parse(result.out);
  }

  json roofline_of(const std::string& preset, std::vector<std::string> more) {
    more.emplace_back("--roofline=h100");
    return planned(preset, std::move(more)).at("roofline");
  }
  /// Its ops by name.
  std::map<std::string, json> roofline_ops(const std::string& preset, std::vector<std::string> more) {
    const json roofline = roofline_of(preset, std::move(more));
    std::map<std::string, json> ops;
    for (const json& op : roofline.at("ops")) EXPECT_TRUE(ops.emplace(op.at("op"), op).second) << op;
    return ops;
  }

  WorkingDirectory folder_{{}};
};

TEST_F(PlanCommandTest, PrintsEveryPreset) {
  for (const std::string kind : {"red", "dec"}) {
    for (const std::string size : {"tiny", "150m", "1b", "2b", "4b", "8b"}) {
      const std::string preset = fmt::format("{}_{}", kind, size);
      const ChildResult result = run(preset, {"--parallel.data=2", "--parallel.tensor=2"});
      EXPECT_EQ(result.exit_code, 0) << result.err;
      EXPECT_TRUE(result.err.empty()) << result.err;
      for (const char* word :
           {"parameters", "gradients", "optimizer state", "activations", "checkpoint", "forward FLOPs"})
        EXPECT_NE(result.out.find(word), std::string::npos) << word << "\n" << result.out;
    }
  }
}

TEST_F(PlanCommandTest, JsonAddsUp) {
  const json plan = planned("red_8b", {"--parallel.data=2", "--parallel.tensor=2",
                                       "--parallel.encoder_stages=2", "--parallel.decoder_stages=3"});
  EXPECT_EQ(plan.at("num_ranks"), 20);
  EXPECT_EQ(plan.at("micro_batches"), 5);
  ASSERT_EQ(plan.at("ranks").size(), 20U);
  ASSERT_EQ(plan.at("stages").size(), 5U);
  uint64_t all = 0, checkpoint = 0, largest = 0, stages = 0;
  for (const json& rank : plan.at("ranks")) {
    uint64_t parts = 0;
    for (const auto& [name, bytes] : rank.at("memory").items()) parts += bytes.get<uint64_t>();
    EXPECT_EQ(rank.at("num_bytes"), parts);
    all += parts;
    checkpoint += rank.at("checkpoint_bytes").get<uint64_t>();
    largest = std::max(largest, parts);
  }
  double share = 0.0;
  for (const json& stage : plan.at("stages")) {
    share += stage.at("flops_share").get<double>();
    stages += stage.at("num_bytes").get<uint64_t>();
    EXPECT_EQ(stage.at("in_flight"), 5 - stage.at("stage").get<int>());
  }
  EXPECT_NEAR(share, 1.0, 1e-12);
  EXPECT_EQ(plan.at("num_bytes"), all);
  EXPECT_EQ(stages, all);
  EXPECT_EQ(plan.at("largest_rank_bytes"), largest);
  EXPECT_EQ(plan.at("checkpoint_bytes"), checkpoint);
  EXPECT_EQ(checkpoint, 2 * sizeof(float) * plan.at("parameters").get<uint64_t>());
  EXPECT_GT(plan.at("bubble"), 0.0);
}

// Chunks of layers: less of the step is waited, for more micro-batches in flight.
TEST_F(PlanCommandTest, KnowsChunks) {
  const std::vector<std::string> layout = {"--parallel.decoder_stages=4", "--train.global_batch=12"};
  std::vector<std::string> interleaved = layout;
  interleaved.insert(interleaved.end(), {"--parallel.schedule=interleaved", "--parallel.virtual_stages=2"});
  const json plain = planned("dec_8b", layout), plan = planned("dec_8b", interleaved);
  EXPECT_EQ(plain.at("virtual_stages"), 1);
  EXPECT_EQ(plan.at("virtual_stages"), 2);
  EXPECT_EQ(plan.at("schedule"), "interleaved");
  EXPECT_LT(plan.at("bubble").get<double>(), plain.at("bubble").get<double>());
  int64_t encoder_layers = 0, decoder_layers = 0;
  for (const json& stage : plan.at("stages")) {
    ASSERT_EQ(stage.at("chunks").size(), 2U);
    int in_flight = 0;
    for (const json& chunk : stage.at("chunks")) {
      const auto layers = [&chunk](const char* stack) {
        return chunk.at(stack).at(1).get<int64_t>() - chunk.at(stack).at(0).get<int64_t>();
      };
      encoder_layers += layers("encoder_layers");
      decoder_layers += layers("decoder_layers");
      in_flight += chunk.at("in_flight").get<int>();
    }
    EXPECT_EQ(stage.at("in_flight"), in_flight);
  }
  EXPECT_EQ(encoder_layers, 0);
  EXPECT_EQ(decoder_layers, 32);
  EXPECT_EQ(plan.at("checkpoint_bytes"), plain.at("checkpoint_bytes"));
}

TEST_F(PlanCommandTest, TakesLessThanASecondForTheLargestModelOnManyRanks) {
  const double begin = children_cpu_s();
  planned("red_8b", {"--parallel.data=32", "--parallel.tensor=4", "--parallel.encoder_stages=2",
                     "--parallel.decoder_stages=2", "--train.global_batch=2048"});
  EXPECT_LT(children_cpu_s() - begin, kMostSeconds);
}

TEST_F(PlanCommandTest, RefusesALayoutThatCannotBe) {
  const ChildResult result = run("dec_150m", {"--parallel.encoder_stages=1"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_TRUE(result.out.empty()) << result.out;
  for (const char* words : {"parallel.encoder_stages = 1", "a DecLLM has no encoder", "nearest that run"})
    EXPECT_NE(result.err.find(words), std::string::npos) << result.err;
  EXPECT_EQ(run("red_tiny", {"--parallel.data=2", "--train.global_batch=3"}).exit_code, 2);
}

// Products of the ops, as often as they run, are the model's FLOPs and what attention's backward pass
// computes again: the scores, a fifth of its products.
TEST_F(PlanCommandTest, ARooflineHasEveryProductOfAStep) {
  for (const std::string preset : {"red_150m", "dec_8b"}) {
    const json roofline =
        planned(preset, {"--roofline", "h100", "--train.micro_batch=2", "--train.global_batch=6"})
            .at("roofline");
    const double peak = roofline.at("peak_gflops_per_s"), rate = roofline.at("memory_gb_per_s");
    EXPECT_EQ(peak, 989500.0);
    double flops = 0.0, again = 0.0, seconds = 0.0;
    for (const json& op : roofline.at("ops")) {
      const std::string name = op.at("op");
      const double op_flops = op.at("flops"), bytes = op.at("bytes"), s = op.at("s");
      EXPECT_NEAR(s, std::max(op_flops / 1e9 / peak, bytes / 1e9 / rate), 1e-12 * s) << name;
      EXPECT_EQ(op.at("bound_by") == "products", op_flops / peak > bytes / rate) << name;
      EXPECT_GT(bytes, 0.0) << name;
      if (name.find("attention") != std::string::npos && name.ends_with(", gradients"))
        again += 0.2 * op_flops;
      flops += op_flops;
      seconds += s;
    }
    const double model_flops = roofline.at("model_flops");
    EXPECT_NEAR(flops - again, model_flops, 1e-12 * flops) << preset;
    EXPECT_NEAR(roofline.at("step_s").get<double>(), seconds, 1e-12 * seconds);
    EXPECT_NEAR(roofline.at("mfu").get<double>(), model_flops / 1e9 / peak / seconds, 1e-12);
  }
}

TEST_F(PlanCommandTest, ARooflineCountsWhatIsComputedAgain) {
  const auto flops = [&](const std::string& recompute) {
    return planned("red_150m", {"--roofline=h100", "--train.recompute=" + recompute})
        .at("roofline")
        .at("flops")
        .get<double>();
  };
  const double tokens = 1024, d = 1024, f = 4096, layers = 6;
  EXPECT_NEAR(flops("selective") - flops("none"), 2.0 * tokens * d * 2.0 * f * layers, 1.0);
  EXPECT_GT(flops("full"), flops("selective"));
}

// red_150m: d 1024, f 4096, 3 + 3 layers, 1024 tokens on either side. The encoder's output has its gradient
// in fp32, which each layer's product adds to; the first norm of a stack has no residual.
TEST_F(PlanCommandTest, ARooflineCountsTheBytesThatAStepMoves) {
  const auto ops = roofline_ops("red_150m", {});
  const double n = 1024, d = 1024, f = 4096, layers = 3, bf16 = 2, fp32 = 4;
  const auto bytes = [&](const char* name) { return ops.at(name).at("bytes").get<double>(); };
  EXPECT_EQ(bytes("cross-attention, k, v, input gradient"),
            layers * (bf16 * (n * 2 * d + d * 2 * d) + 2 * fp32 * n * d));
  EXPECT_EQ(bytes("encoder, q, k, v, input gradient"), layers * bf16 * (n * 3 * d + d * 3 * d + n * d));
  EXPECT_EQ(bytes("gradient of the encoder's output to zero"), fp32 * n * d);
  EXPECT_EQ(bytes("gradient of the encoder's output to bf16"), (fp32 + bf16) * n * d);
  const double gain_and_rms = fp32 * (n + d);
  EXPECT_EQ(ops.at("decoder, first norm").at("runs"), 1);
  EXPECT_EQ(bytes("decoder, first norm"), 2 * bf16 * n * d + gain_and_rms);
  EXPECT_EQ(ops.at("decoder, residual, norm").at("runs"), layers - 1);
  EXPECT_EQ(bytes("decoder, residual, norm"), (layers - 1) * (4 * bf16 * n * d + gain_and_rms));
  EXPECT_EQ(bytes("encoder, final norm, input gradient"), 3 * bf16 * n * d + gain_and_rms);
  EXPECT_EQ(bytes("encoder, SwiGLU"), 2 * layers * bf16 * 3 * n * f);
  EXPECT_EQ(ops.at("scalars of the step").at("runs"), 1);
  for (const char* of_several : {"gradients into buckets", "decoder, activations for the next stage"})
    EXPECT_FALSE(ops.contains(of_several)) << of_several;
}

TEST_F(PlanCommandTest, ARooflineCountsArithmeticBesideProducts) {
  const auto ops = roofline_ops("red_150m", {});
  const double n = 1024, d = 1024, f = 4096, layers = 3, heads = 8;
  const auto flops = [&](const char* name) { return ops.at(name).at("other_flops").get<double>(); };
  EXPECT_EQ(flops("encoder, SwiGLU, gradient"), layers * 12 * n * f);
  EXPECT_EQ(flops("encoder, residual, norm"), (layers - 1) * 5 * n * d);
  EXPECT_EQ(flops("encoder, q, k norm, rotation"), 2 * layers * 6 * n * d);
  EXPECT_EQ(flops("cross-attention"), layers * 5 * heads * n * n);
  EXPECT_EQ(flops("decoder, self-attention, causal"), layers * 5 * heads * n * (n + 1) / 2);
  EXPECT_EQ(flops("cross-entropy"), 5 * n * 32768);
  double all = 0.0;
  for (const auto& [name, op] : ops) {
    const double products = op.at("flops"), others = op.at("other_flops");
    all += others;
    // Far below what these GPUs do in fp32 for each byte.
    if (products == 0.0) {
      EXPECT_LT(others, 2.0 * op.at("bytes").get<double>()) << name;
    }
    const bool is_product = op.at("shape").get<std::string>().starts_with("m ");
    EXPECT_EQ(others == 0.0,
              is_product || name.ends_with("zero") || name.ends_with("bf16") || name.ends_with("embedding"))
        << name;
  }
  EXPECT_NEAR(roofline_of("red_150m", {}).at("other_flops").get<double>(), all, 1e-12 * all);
}

TEST_F(PlanCommandTest, ARooflineHasTheOptimizerThatIsChosen) {
  const double d = 1024, f = 4096, parameters = planned("red_150m", {}).at("parameters");
  const auto elements = [&](const json& op) { return op.at("runs").get<double>() * d * f; };
  const auto plain = roofline_ops("red_150m", {}),
             factored = roofline_ops("red_150m", {"--optimizer.factored=yes"});
  EXPECT_FALSE(plain.contains("factored Adafactor, step"));
  EXPECT_NEAR(elements(plain.at("Adafactor, step")), parameters, 1.0);
  const double gains = (2 * 3 + 3 * 3 + 2) * d;  // which have one dim
  EXPECT_NEAR(elements(factored.at("Adafactor, step")), gains, 1.0);
  for (const char* pass : {"sums", "statistics", "RMS", "step"})
    EXPECT_NEAR(elements(factored.at(fmt::format("factored Adafactor, {}", pass))), parameters - gains, 1.0);
  EXPECT_LT(factored.at("factored Adafactor, step").at("bytes"), plain.at("Adafactor, step").at("bytes"));
}

TEST_F(PlanCommandTest, ARooflineHasWhatDataRanksAndStagesAdd) {
  const double d = 1024, f = 4096;
  const auto data = roofline_ops("dec_150m", {"--parallel.data=4"});
  const double parameters = planned("dec_150m", {}).at("parameters");
  const auto elements = [&](const json& op) { return op.at("runs").get<double>() * d * f; };
  EXPECT_NEAR(elements(data.at("gradients into buckets")), 4 * parameters, 1.0);
  EXPECT_NEAR(elements(data.at("weights into buckets")), parameters, 1.0);
  EXPECT_NEAR(elements(data.at("weights from buckets")), 3 * parameters, 1.0);
  EXPECT_FALSE(data.contains("gradients from buckets"));
  const auto bf16 = roofline_ops("dec_150m", {"--parallel.data=4", "--train.gradient_dtype=bf16"});
  EXPECT_NEAR(elements(bf16.at("gradients from buckets")), parameters, 1.0);
  const auto stages = roofline_ops("red_150m", {"--parallel.encoder_stages=2", "--parallel.decoder_stages=3",
                                                "--train.micro_batch=1", "--train.global_batch=5"});
  const auto runs = [&](const char* name) { return stages.at(name).at("runs").get<double>(); };
  EXPECT_EQ(runs("encoder, activations for the next stage"), 5 * 1);
  EXPECT_EQ(runs("decoder, activations for the next stage"), 5 * 2);
  EXPECT_EQ(runs("decoder, activations and gradients that arrive"), 5 * 3 * 2);
  EXPECT_EQ(runs("decoder, first norm"), 5 * 3);
  EXPECT_EQ(runs("encoder's output that arrives"), 5 * 3);
  EXPECT_EQ(runs("gradient of the encoder's output, sum"), 5 * 2);
}

TEST_F(PlanCommandTest, ARooflineIsForAGpuThatIsKnown) {
  const ChildResult unknown = run("red_150m", {"--roofline", "h1000"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_TRUE(unknown.out.empty()) << unknown.out;
  EXPECT_NE(unknown.err.find("--roofline h1000: nothing is known of such a GPU; known are NVIDIA A100"),
            std::string::npos)
      << unknown.err;
  const ChildResult table = run("red_150m", {"--roofline", "h100"});
  EXPECT_NE(table.out.find("\ncross-attention, gradients "), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("\nroofline     NVIDIA H100 80GB HBM3 (stated: 990 TFLOP/s in bf16"),
            std::string::npos)
      << table.out;
}

}  // namespace
}  // namespace red::test

// redllm-cuda bench ops and comm over the fakes: what they print, and that --device names the other program.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "cuda_on_cpu/tiny_step.hpp"

namespace red::test {
namespace {

using nlohmann::json;

/// redllm-cuda bench WORDS... of a tiny model.
ChildResult run(const std::string& setting, std::vector<std::string> words, int ranks = 1) {
  std::vector<std::string> command;
  if (ranks > 1) command = {RED_SOURCE_DIR "/launch/local.sh", "-n", std::to_string(ranks)};
  for (const std::string& word :
       {std::string("/usr/bin/env"), setting, std::string("RED_GEMM_CACHE=off"), std::string(RED_PROGRAM)})
    command.push_back(word);
  const std::vector<std::string> bench = bench_tiny(std::move(words));
  command.insert(command.end(), bench.begin(), bench.end());
  return run_child(command, RED_BINARY_DIR, 250);
}

json figures_of(const ChildResult& result) {
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out);
}

TEST(CudaBench, OpsStandBesideWhatIsStatedAndASearch) {
  const json figures =
      figures_of(run("CUDA_ON_CPU_NAME=NVIDIA A100-SXM4-80GB",
                     {"ops", "--device", "cuda", "--seconds=0.001", "--train.precision=bf16"}));
  EXPECT_EQ(figures.at("bounds"), "stated");
  EXPECT_EQ(figures.at("stated_gflops_per_s"), 312e3);
  EXPECT_EQ(figures.at("stated_gb_per_s"), 2039);
  std::map<std::string, json> rows;
  for (const json& row : figures.at("ops")) {
    EXPECT_TRUE(rows.emplace(row.at("op"), row).second) << row;
    const double least =
        std::max(row.at("gflops_per_s").get<double>() / 312e3, row.at("gb_per_s").get<double>() / 2039);
    EXPECT_NEAR(row.at("share").get<double>(), least, 1e-9 + 1e-6 * least) << row;
  }
  for (const char* product :
       {"decoder, q, k, v", "encoder, down, weight gradient", "logits, input gradient"}) {
    EXPECT_GT(rows.at(product).at("searched_algorithms"), 1) << product;
    EXPECT_GT(rows.at(product).at("searched_us"), 0) << product;
  }
  for (const char* other : {"decoder, self-attention, causal", "cross-attention, gradients",
                            "encoder, SwiGLU", "Adafactor, step"})
    EXPECT_FALSE(rows.at(other).contains("searched_us")) << other;
}

TEST(CudaBench, OpsOfAnUnknownGpuStandBesideWhatIsMeasured) {
  const json figures =
      figures_of(run("CUDA_ON_CPU_NAME=NVIDIA Something 9000", {"ops", "--seconds=0.001", "--only=SwiGLU"}));
  EXPECT_EQ(figures.at("bounds"), "measured");
  EXPECT_FALSE(figures.contains("stated_gflops_per_s"));
  EXPECT_EQ(figures.at("ops").size(), 4U);  // of encoder and decoder, and their gradients
}

TEST(CudaBench, CommHasAlgorithmAndBusBandwidth) {
  const json figures =
      figures_of(run("CUDA_ON_CPU_DEVICES=1",
                     {"comm", "--device=cuda", "--from-kib=1", "--to-mib=1", "--bench.steps=1",
                      "--parallel.data=2", "--parallel.transport=staged", "--train.global_batch=4"},
                     2));
  std::map<std::string, int> sizes;
  for (const json& row : figures.at("comm")) {
    ++sizes[row.at("operation")];
    EXPECT_GT(row.at("us"), 0) << row;
    const double rate = row.at("gb_per_s"), kib = row.at("kib"), us = row.at("us");
    EXPECT_NEAR(rate * us, kib * 1.024, 1e-6 * kib) << row;
    const bool half = row.at("operation") == "reduce-scatter" || row.at("operation") == "all-gather";
    EXPECT_NEAR(row.at("bus_gb_per_s").get<double>(), half ? rate / 2 : rate, 1e-9) << row;
  }
  for (const char* name : {"all-reduce", "reduce-scatter", "all-gather", "broadcast"})
    EXPECT_EQ(sizes[name], 6) << name;
}

TEST(CudaBench, TheOtherDeviceIsTheOtherProgram) {
  for (const char* bench : {"ops", "step", "comm", "generate"}) {
    const ChildResult result = run("CUDA_ON_CPU_DEVICES=1", {bench, "--device=cpu"});
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_NE(result.err.find("--device cpu: this program computes on a GPU; run redllm instead"),
              std::string::npos)
        << result.err;
  }
  EXPECT_EQ(run("CUDA_ON_CPU_DEVICES=1", {"ops", "--device=gpu"}).exit_code, 2);
}

}  // namespace
}  // namespace red::test

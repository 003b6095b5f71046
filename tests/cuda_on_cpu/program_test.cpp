// The program with the CUDA backend, over the fakes: what it says where it cannot run, and what runs without
// a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "integration/child_process.hpp"

namespace red::test {
namespace {

const std::string kBench = std::string(RED_SOURCE_DIR) + "/configs/bench/red_tiny.ini";

ChildResult run(const std::string& setting, const std::vector<std::string>& arguments) {
  std::vector<std::string> command{"/usr/bin/env", setting, "RED_GEMM_CACHE=off", RED_PROGRAM};
  command.insert(command.end(), arguments.begin(), arguments.end());
  return run_child(command, RED_BINARY_DIR, 100);
}

TEST(CudaProgram, WithoutAGpuNamesTheOtherProgram) {
  const ChildResult result = run("CUDA_ON_CPU_DEVICES=0", {"bench", "step", "--config", kBench});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_NE(result.err.find("redllm-cuda cannot use a GPU here: no CUDA-capable device is detected"),
            std::string::npos)
      << result.err;
  EXPECT_NE(result.err.find("or use redllm, the same program for CPUs"), std::string::npos) << result.err;
}

TEST(CudaProgram, BenchesAStep) {
  const ChildResult result =
      run("CUDA_ON_CPU_DEVICES=1",
          {"bench", "step", "--config", kBench, "--json", "--model.vocab_size=96", "--model.d_model=32",
           "--model.d_ff=64", "--model.num_heads=2", "--model.head_dim=16", "--model.encoder_layers=1",
           "--model.decoder_layers=1", "--data.window=32", "--train.micro_batch=2", "--train.global_batch=4",
           "--bench.steps=1", "--bench.warmup_steps=1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto figures = nlohmann::json::parse(result.out);
  EXPECT_EQ(figures.at("device"), "GPU 0 of 1, CPU in the place of a GPU, sm_90");
  EXPECT_NEAR(figures.at("loss").get<double>(), std::log(96.0), 1.0);
  EXPECT_GE(figures.at("peak_device_mib"), figures.at("planned_mib"));
}

TEST(CudaProgram, PlansWithoutAGpu) {
  const ChildResult result = run("CUDA_ON_CPU_DEVICES=0", {"plan", "--config", kBench});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("MiB"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace red::test

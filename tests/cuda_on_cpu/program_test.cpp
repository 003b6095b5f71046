// The program with the CUDA backend, over the fakes: what it says where it cannot run, and what runs without
// a GPU.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cuda_on_cpu/tiny_step.hpp"

namespace red::test {
namespace {

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
  const ChildResult result = run("CUDA_ON_CPU_DEVICES=1", kTinyStep);
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

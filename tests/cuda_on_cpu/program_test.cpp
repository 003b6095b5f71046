// The program with the CUDA backend, over the fakes: what it says where it cannot run, and what runs without
// a GPU.
#include <gtest/gtest.h>

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

TEST(CudaProgram, SaysWhatItCannotDoYet) {
  const ChildResult result = run("CUDA_ON_CPU_DEVICES=1", {"bench", "step", "--config", kBench});
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_NE(result.err.find("redllm-cuda cannot train, evaluate, generate or bench yet"), std::string::npos)
      << result.err;
}

TEST(CudaProgram, PlansWithoutAGpu) {
  const ChildResult result = run("CUDA_ON_CPU_DEVICES=0", {"plan", "--config", kBench});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("MiB"), std::string::npos) << result.out;
}

}  // namespace
}  // namespace red::test

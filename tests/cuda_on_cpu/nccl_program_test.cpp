// The program with the CUDA backend on two ranks: over what stands for NCCL where each has a GPU of its own,
// and through the host where they share one.
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "cuda_on_cpu/tiny_step.hpp"

namespace red::test {
namespace {

ChildResult run_words_on_two(const std::string& gpus, const std::vector<std::string>& words) {
  std::vector<std::string> command{
      "/usr/bin/env", gpus, "RED_GEMM_CACHE=off", RED_SOURCE_DIR "/launch/local.sh", "-n", "2", RED_PROGRAM};
  command.insert(command.end(), words.begin(), words.end());
  return run_child(command, RED_BINARY_DIR, 100);
}

/// The same on two ranks of two pipeline stages.
ChildResult run_on_two(const std::string& gpus, const std::string& more = "--bench.steps=1") {
  std::vector<std::string> words = kTinyStep;
  words.insert(words.end(), {"--parallel.encoder_stages=1", more});
  return run_words_on_two(gpus, words);
}

double loss_of(const ChildResult& result) {
  return nlohmann::json::parse(result.out).at("loss").get<double>();
}

TEST(NcclProgram, RanksTalkOverNcclWhereEachHasAGpu) {
  const ChildResult over_nccl = run_on_two("CUDA_ON_CPU_DEVICES=2"),
                    shared = run_on_two("CUDA_ON_CPU_DEVICES=1");
  ASSERT_EQ(over_nccl.exit_code, 0) << over_nccl.err;
  ASSERT_EQ(shared.exit_code, 0) << shared.err;
  EXPECT_NE(over_nccl.err.find("ranks exchange GPU memory over NCCL 2."), std::string::npos) << over_nccl.err;
  EXPECT_NE(shared.err.find("not over NCCL: ranks 0 and 1 share a GPU"), std::string::npos) << shared.err;
  EXPECT_EQ(loss_of(over_nccl), loss_of(shared));
  // The executor has no times of the device.
  EXPECT_TRUE(nlohmann::json::parse(over_nccl.out).at("bubble").is_null()) << over_nccl.out;
  EXPECT_TRUE(nlohmann::json::parse(over_nccl.out).at("bubble_simulated").is_null()) << over_nccl.out;
  const ChildResult staged = run_on_two("CUDA_ON_CPU_DEVICES=2", "--parallel.transport=staged");
  EXPECT_NE(staged.err.find("through host memory, which is slow: parallel.transport = staged"),
            std::string::npos)
      << staged.err;
}

TEST(NcclProgram, CollectivesAndMessagesAreTimed) {
  const ChildResult result = run_words_on_two(
      "CUDA_ON_CPU_DEVICES=2",
      bench_tiny({"comm", "--from-kib=1", "--to-mib=1", "--bench.steps=1", "--train.global_batch=4",
                  "--parallel.data=2", "--parallel.transport=nccl"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::map<std::string, int> sizes;
  const nlohmann::json figures = nlohmann::json::parse(result.out);
  for (const nlohmann::json& row : figures.at("comm")) {
    ++sizes[row.at("operation")];
    EXPECT_GT(row.at("us"), 0) << row;
    EXPECT_GT(row.at("bus_gb_per_s"), 0) << row;
  }
  for (const char* name : {"all-reduce", "reduce-scatter", "all-gather", "broadcast"})
    EXPECT_EQ(sizes[name], 6) << name;
}

TEST(NcclProgram, EveryAxisIsTimed) {
  const ChildResult result = run_child({"/usr/bin/env",
                                        "CUDA_ON_CPU_DEVICES=8",
                                        "RED_GEMM_CACHE=off",
                                        RED_SOURCE_DIR "/launch/local.sh",
                                        "-n",
                                        "6",
                                        RED_PROGRAM,
                                        "bench",
                                        "comm",
                                        "--config",
                                        kBench,
                                        "--json",
                                        "--from-kib=64",
                                        "--to-mib=1",
                                        "--bench.steps=1",
                                        "--model.decoder_layers=2",
                                        "--parallel.tensor=2",
                                        "--parallel.encoder_stages=1",
                                        "--parallel.decoder_stages=2",
                                        "--parallel.transport=nccl"},
                                       RED_BINARY_DIR, 200);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::map<std::string, int> rows;
  const nlohmann::json figures = nlohmann::json::parse(result.out);
  for (const nlohmann::json& row : figures.at("comm")) {
    ++rows[row.at("axis").get<std::string>() + ", " + row.at("operation").get<std::string>()];
    EXPECT_EQ(row.at("ranks"), row.at("axis") == "tensor" ? 2 : 3) << row;
    EXPECT_GT(row.at("bus_gb_per_s"), 0) << row;
  }
  for (const char* name : {"tensor, all-reduce", "tensor, reduce-scatter", "tensor, all-gather",
                           "pipeline, send to the next stage", "pipeline, send both ways"})
    EXPECT_EQ(rows[name], 3) << name;
}

TEST(NcclProgram, SaysWhyATransportCannotBeHad) {
  const ChildResult aware = run_on_two("CUDA_ON_CPU_DEVICES=2", "--parallel.transport=cuda_aware");
  EXPECT_EQ(aware.exit_code, 2) << aware.err;
  EXPECT_NE(aware.err.find("this MPI does not say that it takes GPU memory"), std::string::npos) << aware.err;
  const ChildResult result = run_on_two("CUDA_ON_CPU_DEVICES=1", "--parallel.transport=nccl");
  EXPECT_EQ(result.exit_code, 2) << result.err;
  EXPECT_NE(result.err.find("parallel.transport = nccl, but NCCL cannot be used: ranks 0 and 1 share a GPU; "
                            "choose auto"),
            std::string::npos)
      << result.err;
}

}  // namespace
}  // namespace red::test

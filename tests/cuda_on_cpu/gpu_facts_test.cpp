// What the program says of its GPUs, over the fakes of CUDA and of NVML: names, stated peaks, sensors,
// binding.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cuda_on_cpu/tiny_step.hpp"
#include "device/numa.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";
const std::string kHealthy =
    "sm=1980 memory=2619 temperature=61 milliwatts=412000 limit=700000 ecc=0 reasons=0";

class GpuFactsTest : public testing::Test {
 protected:
  GpuFactsTest() { copy_good_inputs(folder_.path()); }

  /// The program on these ranks, each in this environment, in which $r is the rank.
  ChildResult run(int ranks, const std::string& environment, const std::string& arguments) const {
    const std::string script =
        fmt::format("r=$OMPI_COMM_WORLD_RANK; export RED_GEMM_CACHE=off {}; exec {} {}", environment,
                    RED_PROGRAM, arguments);
    return run_child(
        {kLocal, "-n", std::to_string(ranks), "--cores-per-rank", "0", "/bin/bash", "-c", script},
        folder_.path(), 200);
  }
  ChildResult preflight(int ranks, const std::string& environment, const std::string& options,
                        int mib = 1) const {
    return run(ranks, environment,
               fmt::format("preflight --config=run.ini --train.run_dir=fresh --train.precision=fp32 "
                           "--train.global_batch=4 --train.deterministic=yes --parallel.data={} "
                           "--slower-by=1 --seconds=0 --mib={} {}",
                           ranks, mib, options));
  }
  WorkingDirectory folder_;
};

ChildResult step_on(const std::string& gpu, const std::vector<std::string>& more = {}) {
  std::vector<std::string> command = {"/usr/bin/env", "CUDA_ON_CPU_NAME=" + gpu, "RED_GEMM_CACHE=off",
                                      RED_PROGRAM};
  command.insert(command.end(), kTinyStep.begin(), kTinyStep.end());
  command.insert(command.end(), more.begin(), more.end());
  return run_child(command, RED_BINARY_DIR, 100);
}

TEST_F(GpuFactsTest, MfuIsAShareOfWhatIsStated) {
  for (const auto& [options, tflops] :
       {std::pair("--train.precision=bf16", 989.5), std::pair("--train.precision=fp32", 67.0)}) {
    const ChildResult result = step_on("NVIDIA H100 80GB HBM3", {options});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const json figures = json::parse(result.out);
    EXPECT_EQ(figures.at("stated_gflops_per_s"), 1e3 * tflops);
    EXPECT_NEAR(figures.at("mfu").get<double>(),
                figures.at("model_gflops_per_s").get<double>() / (1e3 * tflops), 1e-12);
    EXPECT_FALSE(figures.contains("no_mfu"));
  }
}

TEST_F(GpuFactsTest, AnUnknownGpuHasNoMfuAndTheReasonIsSaid) {
  const ChildResult result = step_on("NVIDIA Something 9000");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json figures = json::parse(result.out);
  EXPECT_TRUE(figures.at("mfu").is_null());
  EXPECT_TRUE(figures.at("fma_peak_gflops_per_s").is_null());  // of CPUs
  EXPECT_FALSE(figures.contains("stated_gflops_per_s"));
  EXPECT_NE(figures.at("no_mfu").get<std::string>().find("NVIDIA Something 9000"), std::string::npos);
  EXPECT_GT(figures.at("peak_share"), 0.0);  // of what was measured
}

TEST_F(GpuFactsTest, RanksThatShareAGpuShareItsPeak) {
  std::string arguments;
  for (const std::string& word : kTinyStep) arguments += word + " ";
  const ChildResult result = run(2, "CUDA_ON_CPU_NAME='NVIDIA H200' CUDA_ON_CPU_DEVICES=1",
                                 arguments + "--train.precision=bf16 --parallel.data=2");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(json::parse(result.out).at("stated_gflops_per_s"), 989.5e3);
}

TEST_F(GpuFactsTest, PreflightShowsSensorsOfEveryRank) {
  const std::string environment =
      fmt::format("CUDA_ON_CPU_DEVICES=2 RED_NVML={} FAKE_NVML='{}'", FAKE_NVML_LIBRARY, kHealthy);
  const ChildResult result = preflight(2, environment, "--json");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_TRUE(report.at("findings").empty()) << report.at("findings");
  for (std::size_t rank = 0; rank < 2; ++rank) {
    const json& gpu = report.at("ranks").at(rank).at("gpu");
    EXPECT_EQ(gpu.at("index"), rank);
    EXPECT_EQ(gpu.at("pci_address"), fmt::format("0000:{:02x}:00.0", 0x10 + rank));
    EXPECT_EQ(gpu.at("temperature_c"), 61);
    EXPECT_EQ(gpu.at("power_w"), 412);
    EXPECT_EQ(gpu.at("power_limit_w"), 700);
    EXPECT_EQ(gpu.at("memory_mhz"), 2619);
    EXPECT_EQ(gpu.at("name"), "CPU in the place of a GPU");
    EXPECT_EQ(gpu.at("driver"), "580.65.06");
  }
  const ChildResult table = preflight(1, environment, "");
  ASSERT_EQ(table.exit_code, 0) << table.err;
  EXPECT_NE(table.out.find("0000:10:00.0"), std::string::npos) << table.out;
}

TEST_F(GpuFactsTest, PreflightComparesLibrariesAndAddsUpInGpuMemory) {
  for (const std::string transport : {"auto", "staged"}) {
    const ChildResult result =
        preflight(2, "RED_NVML=none CUDA_ON_CPU_DEVICES=2", "--json --parallel.transport=" + transport);
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.err.find("over NCCL 2.") != std::string::npos, transport == "auto") << result.err;
    const json report = json::parse(result.out);
    for (const json& rank : report.at("ranks")) {
      for (const char* name : {"NCCL", "CUDA's runtime", "the driver's CUDA"})
        EXPECT_FALSE(rank.at("versions").at(name).get<std::string>().empty()) << name;
      EXPECT_GT(rank.at("local_gb_s"), 0);
      EXPECT_GT(rank.at("gpu").at("memory_needed"), 0);
      EXPECT_GT(rank.at("gpu").at("memory_free"), rank.at("gpu").at("memory_needed"));
    }
  }
  // What is added up lies in the GPU's memory.
  const ChildResult full =
      preflight(2, "RED_NVML=none CUDA_ON_CPU_DEVICES=2 CUDA_ON_CPU_MEMORY=$((600 << 20))", "", 700);
  EXPECT_NE(full.err.find("cannot allocate 700.0 MiB of GPU memory"), std::string::npos) << full.err;
}

TEST_F(GpuFactsTest, PreflightNamesAGpuOthersHaveFilled) {
  const ChildResult result = preflight(
      2,
      "SLURMD_NODENAME=n$r RED_NVML=none CUDA_ON_CPU_DEVICES=2 CUDA_ON_CPU_MEMORY=$((r ? 9 << 30 : 1 << 17))",
      "--exclude-file=excluded");
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_NE(result.err.find("GPU 0 of rank 0 on node n0 has 0.0 GiB of memory free"), std::string::npos)
      << result.err;
  EXPECT_EQ(read_bytes(folder_.path() / "excluded"), "n0\n");
}

TEST_F(GpuFactsTest, PreflightNamesAGpuThatIsHotAndOneWithBrokenMemory) {
  const ChildResult result = preflight(
      2,
      fmt::format(
          "SLURMD_NODENAME=n$r CUDA_ON_CPU_DEVICES=2 RED_NVML={} FAKE_NVML=$([ $r = 0 ] && echo 'ecc=3' || "
          "echo 'temperature=92 reasons=0x40')",
          FAKE_NVML_LIBRARY),
      "--exclude-file=excluded");
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_NE(result.err.find("of rank 0 on node n0 has 3 errors of memory"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("of rank 1 on node n1 is slowed by heat (slowed by the hardware), at 92 C"),
            std::string::npos)
      << result.err;
  EXPECT_EQ(read_bytes(folder_.path() / "excluded"), "n0\nn1\n");
}

TEST_F(GpuFactsTest, WithoutSensorsPreflightSaysSoAndNothingFails) {
  const ChildResult result = preflight(1, "RED_NVML=libno-such-nvml.so.1", "");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find("nothing is known of clocks, heat and memory errors"), std::string::npos)
      << result.err;
  EXPECT_NE(result.err.find("libno-such-nvml.so.1: cannot open"), std::string::npos) << result.err;
}

TEST_F(GpuFactsTest, TrainingWritesSensorsDownAndWarnsOnce) {
  const ChildResult result = run(
      1,
      fmt::format(
          "RED_NVML={} FAKE_NVML='sm=1200 memory=2619 temperature=92 milliwatts=300000 limit=650000 ecc=0 "
          "reasons=0x20'",
          FAKE_NVML_LIBRARY),
      "train --config=run.ini --train.run_dir=hot --train.precision=fp32");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(read_bytes(folder_.path() / "hot/metrics.jsonl"));
  int steps = 0;
  for (std::string line; std::getline(lines, line); ++steps) {
    const json metrics = json::parse(line);
    EXPECT_EQ(metrics.at("gpu_sm_mhz"), 1200);
    EXPECT_EQ(metrics.at("gpu_temperature_c"), 92);
    EXPECT_EQ(metrics.at("gpu_power_w"), 300);
    EXPECT_EQ(metrics.at("gpu_memory_mhz"), 2619);
    EXPECT_EQ(metrics.at("gpu_power_limit_w"), 650);
    EXPECT_EQ(metrics.at("gpu_names"), json({"CPU in the place of a GPU"}));
    EXPECT_EQ(metrics.at("gpu_lost_ranks"), 0);
    EXPECT_EQ(metrics.at("gpu_slowed_ranks"), 1);
    EXPECT_EQ(metrics.at("gpu_ecc_errors"), 0);
    EXPECT_TRUE(metrics.at("mfu").is_null());
  }
  EXPECT_EQ(steps, 2);
  const std::string warning = "is slowed by heat (slowed by the driver): 1200 MHz at 92 C";
  const std::size_t first = result.err.find(warning);
  EXPECT_NE(first, std::string::npos) << result.err;
  EXPECT_EQ(result.err.find(warning, first + 1), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("(CPU in the place of a GPU): 0:0"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("no mfu: no peak is stated of the GPUs of 1 of 1 ranks"), std::string::npos)
      << result.err;
}

TEST_F(GpuFactsTest, ALostGpuEndsTheRunWithItsRank) {
  const ChildResult result =
      run(2,
          fmt::format("CUDA_ON_CPU_DEVICES=2 RED_NVML={} FAKE_NVML=$([ $r = 1 ] && echo lost || echo '{}')",
                      FAKE_NVML_LIBRARY, kHealthy),
          "train --config=run.ini --train.run_dir=gone --train.precision=fp32 --parallel.data=2 "
          "--train.global_batch=4");
  EXPECT_EQ(result.exit_code, 6) << result.err;
  std::array<char, 256> host{};
  ASSERT_EQ(gethostname(host.data(), host.size() - 1), 0);
  for (const std::string& words :
       {std::string("rank 1 error: step 1: CPU in the place of a GPU at 0000:11:00.0 on "),
        std::string(host.data()) + " is lost, NVML says \"GPU is lost\": restart the machine"})
    EXPECT_NE(result.err.find(words), std::string::npos) << words << "\n" << result.err;
  std::istringstream lines(read_bytes(folder_.path() / "gone/metrics.jsonl"));
  std::string line;
  ASSERT_TRUE(std::getline(lines, line));
  const json metrics = json::parse(line);
  EXPECT_EQ(metrics.at("gpu_lost_ranks"), 1);
  EXPECT_EQ(metrics.at("gpu_sm_mhz"), 1980);  // of the other rank
  EXPECT_FALSE(std::getline(lines, line)) << line;
}

TEST_F(GpuFactsTest, InstancesOfADividedGpuHaveMemoryOfTheirOwn) {
  const std::string large = "--json --model.d_ff=65536", quiet = "RED_NVML=none CUDA_ON_CPU_DEVICES=";
  const ChildResult alone = preflight(2, quiet + "2", large);
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const uint64_t needed = json::parse(alone.out).at("ranks").at(0).at("gpu").at("memory_needed");
  ASSERT_GT(needed, 20U << 20) << "beside which what preflight itself takes is little";
  const std::string half_more = fmt::format(" CUDA_ON_CPU_MEMORY={}", needed * 3 / 2);
  const ChildResult divided = preflight(2, quiet + "2 CUDA_ON_CPU_MIG=1" + half_more, large);
  ASSERT_EQ(divided.exit_code, 0) << divided.err;
  const json ranks = json::parse(divided.out).at("ranks");
  EXPECT_EQ(ranks.at(0).at("gpu").at("pci_address"), ranks.at(1).at("gpu").at("pci_address"));
  EXPECT_NE(ranks.at(0).at("gpu").at("identity"), ranks.at(1).at("gpu").at("identity"));
  // NCCL of this version takes one rank of each GPU.
  EXPECT_NE(divided.err.find("ranks 0 and 1 have instances of one divided GPU"), std::string::npos)
      << divided.err;
  const ChildResult shared = preflight(2, quiet + "1" + half_more, large);
  EXPECT_EQ(shared.exit_code, 9) << shared.err;
  EXPECT_NE(shared.err.find("what runs on it needs"), std::string::npos) << shared.err;
}

TEST_F(GpuFactsTest, TheLaunchersOfOthersSayWhichGpuARankTakes) {
  for (const char* launcher : {"OMPI_COMM_WORLD_LOCAL_RANK=2", "MPI_LOCALRANKID=2 SLURM_LOCALID=0",
                               "PMI_LOCAL_RANK=2 SLURM_LOCALID=0", "SLURM_LOCALID=2"}) {
    const ChildResult result = run_child(
        {"/bin/sh", "-c",
         fmt::format(
             "export CUDA_ON_CPU_DEVICES=4 RED_NVML=none RED_GEMM_CACHE=off {}; exec {} preflight "
             "--json --config=run.ini --train.run_dir=fresh --train.precision=fp32 --seconds=0 --mib=1 "
             "--train.deterministic=yes --slower-by=1",
             launcher, RED_PROGRAM)},
        folder_.path(), 100);
    ASSERT_EQ(result.exit_code, 0) << launcher << result.err;
    EXPECT_EQ(json::parse(result.out).at("ranks").at(0).at("gpu").at("index"), 2) << launcher;
  }
}

/// A machine whose cores 0 and 1, of those that this test may use, are NUMA nodes with a GPU each.
class TwoNumaNodes {
 public:
  TwoNumaNodes(const fs::path& folder, const std::vector<int>& cores) : sysfs_(folder / "sys") {
    for (int node = 0; node < 2; ++node) {
      put(fmt::format("devices/system/node/node{}/cpulist", node), cores[static_cast<std::size_t>(node)]);
      put(fmt::format("bus/pci/devices/0000:1{}:00.0/numa_node", node), node);
    }
  }
  std::string environment() const {
    return fmt::format("CUDA_ON_CPU_DEVICES=2 RED_NVML=none RED_SYSFS={}", sysfs_.string());
  }

 private:
  void put(const std::string& file, int number) const {
    fs::create_directories((sysfs_ / file).parent_path());
    std::ofstream(sysfs_ / file) << number << "\n";
  }
  fs::path sysfs_;
};

TEST_F(GpuFactsTest, RanksBindThemselvesToCoresNearTheirGpus) {
  const std::vector<int> cores = own_cores();
  if (cores.size() < 2 || cores.size() < std::thread::hardware_concurrency())
    GTEST_SKIP() << "needs all cores of a machine with two";
  const TwoNumaNodes machine(folder_.path(), cores);
  const auto cores_of = [&](const std::string& before, std::size_t rank) {
    const ChildResult result = preflight(2, before + machine.environment(), "--json");
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out).at("ranks").at(rank).at("cores").get<std::vector<int>>();
  };
  EXPECT_EQ(cores_of("", 0), std::vector<int>{cores[0]});
  EXPECT_EQ(cores_of("", 1), std::vector<int>{cores[1]});
  EXPECT_EQ(cores_of("RED_BIND=off ", 1), cores);
}

TEST_F(GpuFactsTest, ARankThatWasBoundFarFromItsGpuIsTold) {
  const std::vector<int> cores = own_cores();
  if (cores.size() < 2) GTEST_SKIP() << "needs two cores";
  const TwoNumaNodes machine(folder_.path(), cores);
  const ChildResult result =
      preflight(2, machine.environment() + fmt::format("; taskset -cp {} $$ >/dev/null", cores[0]), "");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.err.find(
                fmt::format("is on NUMA node 1, but the rank is bound to cores {} of NUMA node 0", cores[0])),
            std::string::npos)
      << result.err;
}

}  // namespace
}  // namespace red::test

// Which GPUs are found unfit and which ranks are far from theirs, by reports that are made up.
#include "launch/gpu_report.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "launch/preflight_report.hpp"

namespace red::launch {
namespace {

using Names = std::vector<std::string>;

/// Two nodes of two GPUs, on NUMA nodes 0 and 1, all well.
std::vector<RankReport> cluster() {
  std::vector<RankReport> reports;
  for (int rank = 0; rank < 4; ++rank) {
    RankReport& r = reports.emplace_back();
    r.rank = rank;
    r.node = "n" + std::to_string(rank / 2);
    r.num_cores_of_host = 8;
    r.cores = rank % 2 == 0 ? std::vector<int>{0, 1} : std::vector<int>{4, 5};
    GpuReport& gpu = r.gpu.emplace();
    gpu.index = rank % 2;
    gpu.name = "NVIDIA H100 80GB HBM3";
    gpu.pci_address = rank % 2 == 0 ? "0000:19:00.0" : "0000:9b:00.0";
    gpu.identity = "gpu" + std::to_string(rank);
    gpu.numa_node = rank % 2;
    gpu.near_cores = rank % 2 == 0 ? "0-3" : "4-7";
    gpu.core_nodes = {rank % 2};
    gpu.driver = "580.65.06";
    gpu.memory_free = uint64_t{79} << 30;
    gpu.memory_needed = uint64_t{60} << 30;
    gpu.state.sm_mhz = 1980.0;
    gpu.state.memory_mhz = 2619.0;
    gpu.state.temperature_c = 61.0;
    gpu.state.power_w = 690.5;
    gpu.state.power_limit_w = 700.0;
    gpu.state.power_capped = true;
    gpu.state.ecc_errors = 0;
  }
  return reports;
}

/// What is found, but for `change`, in a cluster that is well.
template <class Change>
std::vector<Finding> found(const Change& change) {
  std::vector<RankReport> reports = cluster();
  change(reports);
  std::vector<Finding> findings;
  find_gpus(reports, findings);
  return findings;
}

void expect_one(const std::vector<Finding>& findings, const Names& nodes, const Names& words, bool stops) {
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].nodes, nodes);
  EXPECT_EQ(findings[0].stops, stops);
  for (const std::string& word : words)
    EXPECT_NE(findings[0].text.find(word), std::string::npos) << word << ": " << findings[0].text;
}

TEST(GpuReportTest, NothingIsFoundWhereAllIsWell) {
  EXPECT_TRUE(found([](auto&) {}).empty());
  EXPECT_TRUE(found([](auto& reports) {
                for (RankReport& r : reports) r.gpu.reset();
              }).empty());
}

TEST(GpuReportTest, AGpuThatHeatOrThePowerBrakeSlowsIsNotFit) {
  expect_one(found([](auto& reports) {
               reports[3].gpu->state.slowed_by = {"heat (slowed by the hardware)"};
               reports[3].gpu->state.temperature_c = 91.0;
             }),
             {"n1"},
             {"GPU 1 (NVIDIA H100 80GB HBM3 at 0000:9b:00.0) of rank 3 on node n1", "slowed by heat", "91 C"},
             true);
}

TEST(GpuReportTest, AGpuWithBrokenMemoryIsNotFit) {
  expect_one(found([](auto& reports) { reports[0].gpu->state.ecc_errors = 2; }), {"n0"},
             {"rank 0 on node n0", "2 errors of memory", "nvidia-smi --gpu-reset"}, true);
}

TEST(GpuReportTest, AGpuWithTooLittleFreeMemoryIsNotFit) {
  const auto holds = [](GpuReport& gpu, uint64_t gib) { gpu.memory_free = gib << 30; };
  expect_one(found([&](auto& reports) { holds(*reports[2].gpu, 3); }), {"n1"},
             {"GPU 0 of rank 2 on node n1 has 3.0 GiB", "needs 60.0 GiB", "nvidia-smi"}, true);
  // No GPU has as much: what the run plans is at fault.
  expect_one(found([&](auto& reports) { reports[1].gpu->memory_needed = uint64_t{80} << 30; }), {},
             {"GPU 1 of rank 1", "needs 80.0 GiB"}, true);
  // Two ranks on one GPU.
  expect_one(found([](auto& reports) { reports[1].gpu->identity = reports[0].gpu->identity; }), {},
             {"GPU 0 of rank 0 on node n0", "needs 120.0 GiB"}, true);
  // Two instances of one, each with memory of its own.
  EXPECT_TRUE(
      found([](auto& reports) { reports[1].gpu->pci_address = reports[0].gpu->pci_address; }).empty());
}

TEST(GpuReportTest, ALostGpuIsNotFit) {
  expect_one(found([](auto& reports) { reports[2].gpu->state.lost = "GPU is lost"; }), {"n1"},
             {"rank 2 on node n1", "GPU is lost"}, true);
}

TEST(GpuReportTest, ARankThatIsBoundFarFromItsGpuIsWorthALine) {
  expect_one(found([](auto& reports) {
               reports[1].cores = {0, 1};
               reports[1].gpu->core_nodes = {0};
             }),
             {}, {"rank 1", "on NUMA node 1", "bound to cores 0-1 of NUMA node 0", "some of 4-7"}, false);
  EXPECT_TRUE(found([](auto& reports) { reports[1].gpu->core_nodes = {0, 1}; }).empty());
  EXPECT_TRUE(found([](auto& reports) { reports[1].gpu->numa_node.reset(); }).empty());
}

TEST(GpuReportTest, NoSensorsAreOneLineForAll) {
  expect_one(found([](auto& reports) {
               for (RankReport& r : reports) r.gpu->no_sensors = "libnvidia-ml.so.1: cannot open";
             }),
             {}, {"the GPUs of n0, n1", "libnvidia-ml.so.1: cannot open"}, false);
}

TEST(GpuReportTest, ReportsComeBackAsTheyWere) {
  std::vector<RankReport> reports = cluster();
  reports[1].gpu->state = {};
  reports[1].gpu->state.slowed_by = {"a", "b"};
  reports[1].gpu->state.lost = "GPU is \"lost\"";
  reports[1].gpu->numa_node.reset();
  reports[2].gpu.reset();
  std::string lines;
  for (const RankReport& r : reports) lines += to_json(r) + "\n";
  const std::vector<RankReport> again = reports_from(lines);
  ASSERT_EQ(again.size(), reports.size());
  for (std::size_t i = 0; i < again.size(); ++i) EXPECT_EQ(to_json(again[i]), to_json(reports[i]));
  EXPECT_FALSE(again[2].gpu);
  ASSERT_TRUE(again[0].gpu);
  EXPECT_EQ(again[0].gpu->state.power_w, 690.5);
  EXPECT_EQ(again[0].gpu->state.power_limit_w, 700.0);
  EXPECT_EQ(again[1].gpu->identity, "gpu1");
  EXPECT_FALSE(again[1].gpu->state.power_w);
}

TEST(GpuReportTest, TheTableHasALineForEachRank) {
  std::vector<RankReport> reports = cluster();
  const std::string table = gpu_table(reports);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 5) << table;
  for (const char* cell : {"0000:9b:00.0", " 2619 ", " 700 "})
    EXPECT_NE(table.find(cell), std::string::npos) << cell << "\n" << table;
  for (RankReport& r : reports) r.gpu.reset();
  EXPECT_EQ(gpu_table(reports), "");
}

TEST(GpuReportTest, NodesAreOneLineEach) {
  std::vector<RankReport> reports = cluster();
  reports[3].gpu->core_nodes = {0};
  EXPECT_EQ(gpu_lines(reports),
            "\n  n0 (NVIDIA H100 80GB HBM3): 0:0@0 1:1@1\n  n1 (NVIDIA H100 80GB HBM3): 2:0@0 3:1@1(!0)");
}

// Ranks that share the cores near their GPUs are meant to.
TEST(GpuReportTest, RanksBoundToANumaNodeMayShareIt) {
  std::vector<RankReport> reports = cluster();
  for (RankReport& r : reports) {
    r.cores = {0, 1, 2, 3};
    r.gpu->numa_node = 0;
    r.gpu->near_cores = "0-3";
    r.gpu->core_nodes = {0};
  }
  EXPECT_TRUE(judge(reports, {}).empty());
  // Nor are ranks that all have the cores of their job. Those bound to different ones that overlap are not.
  for (RankReport& r : reports) r.gpu.reset();
  EXPECT_TRUE(judge(reports, {}).empty());
  for (const std::size_t second : {1, 3}) reports[second].cores.pop_back();
  EXPECT_EQ(judge(reports, {}).size(), 2U);  // one of each node
}

}  // namespace
}  // namespace red::launch

// Which machines are found unfit, by reports of clusters that are made up.
#include "launch/preflight_report.hpp"

#include <gtest/gtest.h>

#include "launch/node_lines.hpp"

namespace red::launch {
namespace {

using Names = std::vector<std::string>;

/// Nodes n0, n1, ... of two ranks each, all well.
std::vector<RankReport> cluster(int num_nodes) {
  std::vector<RankReport> reports;
  for (int rank = 0; rank < 2 * num_nodes; ++rank) {
    RankReport r;
    r.rank = rank;
    r.node = "n" + std::to_string(rank / 2);
    r.cores = rank % 2 == 0 ? std::vector<int>{0, 1} : std::vector<int>{2, 3};
    r.num_cores_of_host = 4;
    r.threads = 2;
    r.versions = {{"MPI", "4.1.4"}, {"HDF5", "1.10.8"}};
    if (rank % 2 == 0) r.versions["the program"] = "0.1.0 (CRC-32C 1)";
    r.processor = "Zen";
    r.gemm_gflops = 100.0;
    r.local_gb_s = 5.0;
    r.next_gb_s = rank / 2 + 1 < num_nodes ? 2.0 : 0.0;
    r.memory_free = 1000;
    r.memory_needed = 400;
    r.disk_free = 5000;
    reports.push_back(r);
  }
  return reports;
}

constexpr PreflightLimits kLimits{0.15, 0.5, 4000, 0};

/// What is found, but for `change`, in a cluster that is well.
template <class Change>
std::vector<Finding> found(int num_nodes, const Change& change, const PreflightLimits& limits = kLimits) {
  std::vector<RankReport> reports = cluster(num_nodes);
  change(reports);
  return judge(reports, limits);
}

void expect_one(const std::vector<Finding>& findings, const Names& nodes, const Names& words,
                bool stops = true) {
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].nodes, nodes);
  EXPECT_EQ(findings[0].stops, stops);
  for (const std::string& word : words)
    EXPECT_NE(findings[0].text.find(word), std::string::npos) << word << ": " << findings[0].text;
}

TEST(PreflightTest, NothingIsFoundWhereAllIsWell) {
  for (const int num_nodes : {1, 2, 3, 8}) {
    EXPECT_TRUE(found(num_nodes, [](auto& reports) {
                  reports.back().gemm_gflops = 90.0;  // within 15 %
                  reports.back().clock_s = 0.3;
                }).empty());
  }
}

TEST(PreflightTest, ASlowNodeIsNamed) {
  for (const int num_nodes : {2, 3, 8}) {
    expect_one(
        found(num_nodes, [](auto& reports) { reports[2].gemm_gflops = reports[3].gemm_gflops = 70.0; }),
        {"n1"}, {"node n1", "70.0", "100.0"});
  }
}

TEST(PreflightTest, ASlowRankOfAGoodNodeIsNamed) {
  expect_one(found(8, [](auto& reports) { reports[5].gemm_gflops = 80.0; }), {"n2"},
             {"rank 5", "node n2", "80.0"});
}

TEST(PreflightTest, SlowMessagesWithinANodeAreNamed) {
  expect_one(found(3, [](auto& reports) { reports[4].local_gb_s = 3.0; }), {"n2"},
             {"ranks of node n2", "3.00"});
}

TEST(PreflightTest, ANodeWhosePairsAreBothSlowIsBlamedAndItsNeighboursAreNot) {
  const auto findings = found(6, [](auto& reports) {
    for (const int rank : {4, 5, 6, 7}) reports[rank].next_gb_s = 0.5;  // n2-n3, n3-n4
  });
  ASSERT_EQ(findings.size(), 2U);
  for (const Finding& finding : findings) EXPECT_EQ(finding.nodes, Names{"n3"});
}

TEST(PreflightTest, OneSlowPairIsBlamedOnBoth) {
  expect_one(found(4, [](auto& reports) { reports[0].next_gb_s = reports[1].next_gb_s = 0.5; }), {"n0", "n1"},
             {"nodes n0 and n1", "0.50"});
}

TEST(PreflightTest, WhatDiffersIsNamedOnTheFewerNodes) {
  expect_one(
      found(3, [](auto& reports) { reports[2].versions["MPI"] = reports[3].versions["MPI"] = "5.0.1"; }),
      {"n1"}, {"MPI on n1", "5.0.1", "4.1.4"});
  expect_one(found(3, [](auto& reports) { reports[4].versions["the program"] = "0.1.0 (CRC-32C 2)"; }),
             {"n2"}, {"the program on n2"});
}

TEST(PreflightTest, AnotherProcessorIsWorthALineOnly) {
  expect_one(found(3, [](auto& reports) { reports[0].processor = reports[1].processor = "Xeon"; }), {"n0"},
             {"the processor on n0", "Xeon"}, false);
}

TEST(PreflightTest, AClockThatIsOffIsNamedUnlessItCouldNotBeMeasured) {
  expect_one(found(2, [](auto& reports) { reports[3].clock_s = -2.0; }), {"n1"},
             {"clock of node n1", "2.000 s behind"});
  expect_one(found(2, [](auto& reports) { reports[3].clock_s = 2.0; }), {"n1"}, {"2.000 s ahead of"});
  // All others differ from rank 0's in the same way: it is that one.
  expect_one(found(3,
                   [](auto& reports) {
                     for (std::size_t rank = 2; rank < reports.size(); ++rank) reports[rank].clock_s = 2.0;
                   }),
             {"n0"}, {"clock of node n0", "2.000 s behind"});
  EXPECT_TRUE(found(2, [](auto& reports) {
                reports[3].clock_s = 2.0;
                reports[3].clock_uncertainty_s = 1.9;
              }).empty());
}

TEST(PreflightTest, AFullDiskIsNamedAndIsNoNodesFaultWhereAllSeeIt) {
  expect_one(found(2,
                   [](auto& reports) {
                     for (RankReport& r : reports) r.disk_free = 100;
                   }),
             {}, {"are needed for checkpoints", "n0, n1"});
  expect_one(found(2, [](auto& reports) { reports[2].disk_free = 100; }), {"n1"}, {"seen from n1"});
}

TEST(PreflightTest, ADiskThatCannotBeWrittenIsNamed) {
  expect_one(found(2, [](auto& reports) { reports[2].disk_error = "runs/x: cannot be seen: No such file"; }),
             {"n1"}, {"node n1: runs/x"});
  // A quota that is exceeded, say: no node is at fault.
  expect_one(found(2,
                   [](auto& reports) {
                     for (const int rank : {0, 2}) reports[rank].disk_error = "runs/x: Disk quota exceeded";
                   }),
             {}, {"every node", "n0: runs/x"});
}

TEST(PreflightTest, TooLittleMemoryIsNamed) {
  expect_one(found(2, [](auto& reports) { reports[0].memory_free = 700; }), {"n0"},
             {"node n0", "its 2 ranks need"});
  // No other node has as much: what the run plans is at fault.
  expect_one(found(2, [](auto& reports) { reports[0].memory_needed = 700; }), {}, {"node n0"});
  const auto all = found(3, [](auto& reports) {
    for (RankReport& report : reports) report.memory_needed = 700;
  });
  ASSERT_EQ(all.size(), 3U);
  for (const Finding& finding : all) EXPECT_TRUE(finding.nodes.empty()) << finding.text;
}

TEST(PreflightTest, RanksOnOneCoreAndTooManyThreadsAreWorthALine) {
  expect_one(found(2,
                   [](auto& reports) {
                     reports[3].cores = {1, 2, 3};
                   }),
             {}, {"node n1", "share core 1"}, false);
  // What a job's cgroup leaves is for all of its ranks.
  EXPECT_TRUE(found(2, [](auto& reports) {
                for (const int rank : {2, 3}) {
                  reports[rank].cores = {0, 1};
                  reports[rank].threads = 1;
                }
              }).empty());
  expect_one(found(2, [](auto& reports) { reports[2].threads = 3; }), {},
             {"5 threads of 2 ranks share 4 cores"}, false);
}

TEST(PreflightTest, AnotherNumberOfRanksThanTasksIsNamedWithTheWayOut) {
  expect_one(found(2, [](auto&) {}, {0.15, 0.5, 4000, 8}), {}, {"8 tasks", "4 ranks", "mpirun -n 8"});
}

TEST(PreflightTest, NodesThatAreAlikeHaveOneLine) {
  std::vector<RankReport> reports = cluster(3);
  reports[4].cores = reports[5].cores = {0, 1, 2, 3};
  for (const int rank : {1, 3}) reports[rank].numa_nodes = {1};
  for (const int rank : {4, 5}) reports[rank].numa_nodes = {0, 1};
  reports[4].versions["HDF5"] = reports[5].versions["HDF5"] = "1.14.0";
  EXPECT_EQ(
      node_lines(reports),
      "n0, n1: 1 rank bound to cores 0-1 (2 threads), 1 rank bound to cores 2-3 of NUMA node 1 (2 threads)\n"
      "n2: 2 ranks on all cores 0-3 (2 threads)\n"
      "n0, n1: HDF5: 1.10.8; MPI: 4.1.4; the program: 0.1.0 (CRC-32C 1)\n"
      "n2: HDF5: 1.14.0; MPI: 4.1.4; the program: 0.1.0 (CRC-32C 1)\n");
}

TEST(PreflightTest, ReportsComeBackAsTheyWere) {
  std::string lines;
  std::vector<RankReport> reports = cluster(2);
  reports[1].disk_error = "a \"disk\"";
  for (auto r = reports.rbegin(); r != reports.rend(); ++r) lines += to_json(*r) + "\n";
  const std::vector<RankReport> again = reports_from(lines);
  ASSERT_EQ(again.size(), reports.size());
  for (std::size_t i = 0; i < again.size(); ++i) EXPECT_EQ(to_json(again[i]), to_json(reports[i]));
}

}  // namespace
}  // namespace red::launch

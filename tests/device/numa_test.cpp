#include "device/numa.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "support/temporary_folder.hpp"

namespace red {
namespace {

using Cores = std::vector<int>;

void put(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file) << text;
}

TEST(Numa, ReadsListsOfCores) {
  EXPECT_EQ(parse_cpu_list("0-3,8,10-11\n"), (Cores{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_cpu_list("5"), Cores{5});
  EXPECT_EQ(parse_cpu_list("\n"), Cores());
  for (const char* wrong : {"a", "1-", "-1", "3-1", "1,,2", "0-100000000", "1 2"})
    EXPECT_EQ(parse_cpu_list(wrong), Cores()) << wrong;
}

TEST(Numa, WritesThemTheSameWay) {
  for (const char* text : {"", "0", "0-1", "0-3,8,10-11"})
    EXPECT_EQ(cpu_list_text(parse_cpu_list(text)), text);
}

TEST(Numa, ReadsNodesOfCoresAndOfDevices) {
  const test::TemporaryFolder folder;
  put(folder.path() / "devices/system/node/node0/cpulist", "0-1,4-5\n");
  put(folder.path() / "devices/system/node/node1/cpulist", "2-3,6-7\n");
  put(folder.path() / "devices/system/node/node2/cpulist", "\n");  // memory alone
  put(folder.path() / "devices/system/node/online", "0-2\n");
  put(folder.path() / "bus/pci/devices/0000:19:00.0/numa_node", "1\n");
  put(folder.path() / "bus/pci/devices/0000:1a:00.0/numa_node", "-1\n");
  setenv("RED_SYSFS", folder.path().c_str(), 1);
  const NumaCores numa = numa_cores();
  const auto near = numa_node_of_pci("0000:19:00.0"), unknown = numa_node_of_pci("0000:1a:00.0"),
             absent = numa_node_of_pci("0000:1b:00.0");
  unsetenv("RED_SYSFS");
  EXPECT_EQ(numa, (NumaCores{{0, {0, 1, 4, 5}}, {1, {2, 3, 6, 7}}}));
  EXPECT_EQ(near, 1);
  EXPECT_EQ(unknown, std::nullopt);
  EXPECT_EQ(absent, std::nullopt);
  EXPECT_EQ(numa_nodes_of({1, 4}, numa), std::set<int>{0});
  EXPECT_EQ(numa_nodes_of({1, 2}, numa), (std::set<int>{0, 1}));
  EXPECT_EQ(numa_nodes_of({9}, numa), std::set<int>());
}

TEST(Numa, OnlyWhatNobodyHasBoundIsBound) {
  const NumaCores two{{0, {0, 1}}, {1, {2, 3}}}, one{{0, {0, 1, 2, 3}}};
  const Cores all{0, 1, 2, 3};
  EXPECT_EQ(cores_to_bind_to(all, 4, 1, two), (Cores{2, 3}));
  EXPECT_EQ(cores_to_bind_to({0, 1}, 4, 1, two), Cores());          // somebody bound it, elsewhere
  EXPECT_EQ(cores_to_bind_to(all, 4, 0, one), Cores());             // there is nothing to choose
  EXPECT_EQ(cores_to_bind_to(all, 4, std::nullopt, two), Cores());  // nothing is known
  EXPECT_EQ(cores_to_bind_to(all, 4, 7, two), Cores());
}

TEST(Numa, RanksShareTheCoresThatTheyMayBothRunOn) {
  const Cores eight = parse_cpu_list("0-7"), low = parse_cpu_list("0-3"), high = parse_cpu_list("4-7");
  EXPECT_EQ(share_of_cores(eight, {eight}), 8);
  EXPECT_EQ(share_of_cores(low, {low, high}), 4);             // each has its own
  EXPECT_EQ(share_of_cores(low, {low, high, low, high}), 2);  // each NUMA node's ranks share it
  // A job's cgroup has these cores of a larger host, and none of its ranks is bound.
  EXPECT_EQ(share_of_cores(high, {high, high}), 2);
  EXPECT_EQ(share_of_cores(eight, {eight, eight, eight}), 2);
  EXPECT_EQ(share_of_cores({0, 1, 2}, {{0, 1, 2}, {0, 1, 2}, {0, 1, 2}}), 1);
  EXPECT_EQ(share_of_cores(eight, {eight, low}), 6);
  EXPECT_EQ(share_of_cores({5}, {{5}, {5}, {5}}), 1);
}

TEST(Numa, BindsAThreadToCores) {
  const Cores before = own_cores();
  ASSERT_FALSE(before.empty());
  bind_to_cores({before.back()});
  const Cores bound = own_cores();
  bind_to_cores(before);
  EXPECT_EQ(bound, Cores{before.back()});
  EXPECT_EQ(own_cores(), before);
}

}  // namespace
}  // namespace red

// Memory that cgroups leave, in trees that are made up.
#include "launch/free_memory.hpp"

#include <gtest/gtest.h>

#include "integration/working_directory.hpp"

namespace red::launch {
namespace {

constexpr uint64_t kMib = 1 << 20;
using Files = std::map<std::string, std::string>;

uint64_t free_mib(Files files) {
  files["proc/meminfo"] = "MemTotal:    4096000 kB\nMemAvailable:    2048000 kB\n";  // 2000 MiB
  const test::WorkingDirectory root(files);
  return free_memory(root.path()) / kMib;
}

std::string mib(uint64_t number) {
  return std::to_string(number * kMib) + "\n";
}

TEST(FreeMemory, IsTheHostsWhereNothingIsLimited) {
  EXPECT_EQ(free_mib({}), 2000U);
  EXPECT_EQ(free_mib({{"proc/self/cgroup", "0::/job/step\n"},
                      {"sys/fs/cgroup/job/step/memory.max", "max\n"},
                      {"sys/fs/cgroup/job/step/memory.current", mib(1)}}),
            2000U);
}

// As Slurm has it: the job is limited, and the rank is three levels below.
TEST(FreeMemory, IsTheLeastOfTheGroupsAround) {
  Files files = {{"proc/self/cgroup", "0::/system.slice/slurmd/job_7/step_0/user/task_3\n"},
                 {"sys/fs/cgroup/system.slice/slurmd/job_7/memory.max", mib(1000)},
                 {"sys/fs/cgroup/system.slice/slurmd/job_7/memory.current", mib(400)},
                 {"sys/fs/cgroup/system.slice/slurmd/job_7/step_0/user/task_3/memory.max", "max\n"},
                 {"sys/fs/cgroup/system.slice/slurmd/job_7/step_0/user/task_3/memory.current", mib(300)}};
  EXPECT_EQ(free_mib(files), 600U);
  files["sys/fs/cgroup/system.slice/slurmd/job_7/memory.stat"] =
      "anon 1\ninactive_file " + mib(150) + "active_file 7\n";
  EXPECT_EQ(free_mib(files), 750U);
  files["sys/fs/cgroup/system.slice/slurmd/job_7/step_0/memory.max"] = mib(500);
  files["sys/fs/cgroup/system.slice/slurmd/job_7/step_0/memory.current"] = mib(300);
  EXPECT_EQ(free_mib(files), 200U);
  files["sys/fs/cgroup/memory.max"] = mib(100);  // a container's own, at the top of what it sees
  files["sys/fs/cgroup/memory.current"] = mib(200);
  EXPECT_EQ(free_mib(files), 0U);
}

TEST(FreeMemory, KnowsTheFirstVersionOfCgroups) {
  const std::string group = "sys/fs/cgroup/memory/slurm/uid_0/job_7/";
  Files files = {
      {"proc/self/cgroup", "11:cpuset:/slurm/uid_0/job_7\n4:memory:/slurm/uid_0/job_7/step_0\n0::/other\n"},
      {group + "memory.limit_in_bytes", mib(900)},
      {group + "memory.usage_in_bytes", mib(300)},
      {group + "memory.stat", "cache 5\ntotal_inactive_file " + mib(50)},
      {group + "step_0/memory.limit_in_bytes", "9223372036854771712\n"},
      {group + "step_0/memory.usage_in_bytes", mib(300)}};
  EXPECT_EQ(free_mib(files), 650U);
  files["proc/self/cgroup"] = "4:cpu,memory:/somewhere/the/container/does/not/see\n";
  files["sys/fs/cgroup/memory/memory.limit_in_bytes"] = mib(64);
  files["sys/fs/cgroup/memory/memory.usage_in_bytes"] = mib(24);
  EXPECT_EQ(free_mib(files), 40U);
}

}  // namespace
}  // namespace red::launch

// `redllm preflight` on ranks of this machine, which stand for nodes by the name that Slurm would give them.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kLocal = RED_SOURCE_DIR "/launch/local.sh";
// Rates of ranks that share two cores say nothing.
const std::string kAnyRate = " --slower-by=1 --seconds=0 --mib=1";

/// Cores that this process may run on.
std::vector<int> own_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  return cores;
}

/// Other people's programs that keep a core busy, as long as this lives.
class BusyCore {
 public:
  BusyCore(int core, int num_programs) {
    for (int i = 0; i < num_programs; ++i) {
      const pid_t pid = fork();
      if (pid == 0) compute_for_ever(core);
      pids_.push_back(pid);
    }
  }
  BusyCore(const BusyCore&) = delete;
  BusyCore& operator=(const BusyCore&) = delete;
  ~BusyCore() {
    for (const pid_t pid : pids_) {
      if (pid <= 0) continue;
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

 private:
  [[noreturn]] static void compute_for_ever(int core) {
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(core, &only);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (sched_setaffinity(0, sizeof(only), &only) != 0) _exit(1);
    for (volatile unsigned i = 0;; i = i + 1) {
    }
  }
  std::vector<pid_t> pids_;
};

class PreflightTest : public testing::Test {
 protected:
  PreflightTest() { copy_good_inputs(folder_.path()); }

  /// `ranks` ranks run `before` (in which $r is the rank) and then preflight with these options.
  ChildResult preflight(int ranks, const std::string& before, const std::string& options) const {
    const std::string program = fmt::format(
        "r=$OMPI_COMM_WORLD_RANK; program={}; {}; exec $program preflight --config=run.ini "
        "--train.run_dir=fresh --train.precision=fp32 --train.global_batch=4 --parallel.data={} {}",
        kProgram, before, ranks, options);
    return run_child({kLocal, "-n", std::to_string(ranks), "/bin/bash", "-c", program}, folder_.path(), 120);
  }
  WorkingDirectory folder_;
};

TEST_F(PreflightTest, IsContentWithThisMachine) {
  const ChildResult result = preflight(2, ":", "--json" + kAnyRate);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_TRUE(report.at("sound"));
  ASSERT_EQ(report.at("ranks").size(), 2U);
  for (const json& rank : report.at("ranks")) {
    for (const char* key : {"gemm_gflops", "local_gb_s", "memory_free", "memory_needed", "disk_free"})
      EXPECT_GT(rank.at(key), 0) << key;
    for (const char* key : {"MPI", "HDF5", "the library of matrix products"})
      EXPECT_FALSE(rank.at("versions").at(key).get<std::string>().empty()) << key;
  }
  EXPECT_FALSE(report.at("ranks").at(0).at("versions").at("the program").get<std::string>().empty());
  EXPECT_TRUE(fs::is_empty(folder_.path() / "fresh"));
}

// What launch/local.sh promises is what ranks have: cores of their own, and all of them where there are too
// few or somebody says so.
TEST_F(PreflightTest, RanksAreBoundToCoresOfTheirOwn) {
  const std::vector<int> cores = own_cores();
  if (cores.size() != 2 || std::thread::hardware_concurrency() != 2)
    GTEST_SKIP() << "not a machine of two cores";
  const auto cores_of = [&](int ranks, const std::string& options, const std::string& more = "") {
    const ChildResult result = run_child(
        {"/bin/bash", "-c",
         fmt::format("{} -n {} {} {} preflight --config=run.ini --train.run_dir=fresh --train.precision=fp32 "
                     "--train.global_batch=4 --parallel.data={} --json {} {}",
                     kLocal, ranks, options, kProgram, ranks, more, kAnyRate)},
        folder_.path(), 120);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    std::vector<std::vector<int>> found;
    const json report = json::parse(result.out);
    for (const json& rank : report.at("ranks")) found.push_back(rank.at("cores"));
    return found;
  };
  using Cores = std::vector<std::vector<int>>;
  auto bound = cores_of(2, "");
  std::sort(bound.begin(), bound.end());
  EXPECT_EQ(bound, (Cores{{cores[0]}, {cores[1]}}));
  EXPECT_EQ(cores_of(1, ""), Cores{cores});
  EXPECT_EQ(cores_of(2, "--cores-per-rank 0"), (Cores{cores, cores}));
  EXPECT_EQ(cores_of(2, "", "--train.threads=2"), (Cores{cores, cores}));
  EXPECT_EQ(cores_of(4, ""), (Cores{cores, cores, cores, cores}));
}

TEST_F(PreflightTest, MeasuresEveryPairOfNeighbours) {
  const ChildResult result = preflight(4, "export SLURMD_NODENAME=n$(((r + 1) / 2))", "--json" + kAnyRate);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json ranks = json::parse(result.out).at("ranks");
  const std::vector<std::string> nodes = {"n0", "n1", "n1", "n2"};
  for (std::size_t r = 0; r < nodes.size(); ++r) {
    EXPECT_EQ(ranks.at(r).at("node"), nodes[r]);
    EXPECT_EQ(ranks.at(r).at("local_gb_s") > 0, nodes[r] == "n1");
    EXPECT_EQ(ranks.at(r).at("next_gb_s") > 0, nodes[r] != "n2");
  }
}

TEST_F(PreflightTest, NamesANodeWithAnotherProgramAndWritesItDown) {
  ASSERT_EQ(
      run_child({"/bin/bash", "-c", "cp " + kProgram + " other && echo >>other"}, folder_.path()).exit_code,
      0);
  const ChildResult result =
      preflight(4, "export SLURMD_NODENAME=n$r; if [ $r = 2 ]; then program=./other; fi",
                "--exclude-file=excluded" + kAnyRate);
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_NE(result.err.find("the program on n2"), std::string::npos) << result.err;
  EXPECT_EQ(read_bytes(folder_.path() / "excluded"), "n2\n");
}

TEST_F(PreflightTest, NamesANodeThatOthersSlowDown) {
  const std::vector<int> cores = own_cores();
  if (cores.size() < 2) GTEST_SKIP() << "one core cannot be two nodes";
  const BusyCore busy(cores[1], 4);  // leave its rank a fifth of the core
  const ChildResult result = preflight(
      2,
      fmt::format("export SLURMD_NODENAME=n$r; cores=({} {}); program=\"taskset -c ${{cores[$r]}} $program\"",
                  cores[0], cores[1]),
      "--train.threads=1 --exclude-file=excluded --slower-by=0.5 --mib=1");
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_NE(result.err.find("node n1 multiplies matrices at"), std::string::npos) << result.err;
  EXPECT_EQ(read_bytes(folder_.path() / "excluded"), "n1\n");
}

TEST_F(PreflightTest, NamesADiskWithoutRoom) {
  const ChildResult result = preflight(1, ":", "--checkpoints=1000000000" + kAnyRate);
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_NE(result.err.find("are needed for checkpoints"), std::string::npos) << result.err;
}

TEST_F(PreflightTest, NamesANumberOfTasksThatIsNotTheRanks) {
  const ChildResult result = preflight(2, ":", "--tasks=4" + kAnyRate);
  EXPECT_EQ(result.exit_code, 9) << result.err;
  EXPECT_NE(result.err.find("4 tasks, MPI has 2 ranks"), std::string::npos) << result.err;
}

TEST_F(PreflightTest, ARequestToStopIsRememberedAndTold) {
  const std::string strike = "(until [ -d fresh ]; do sleep 0.01; done; kill -USR1 $$) &";
  const ChildResult result =
      preflight(2, "if [ $r = 1 ]; then " + strike + " fi", "--seconds=1 --slower-by=1 --mib=1");
  EXPECT_EQ(result.exit_code, 75) << result.err;
  EXPECT_NE(result.err.find("2 ranks are fit for the run"), std::string::npos) << result.err;
}

// As srun starts ranks that Open MPI does not recognise as one run: each takes itself for the only one.
TEST_F(PreflightTest, RanksThatDoNotKnowEachOtherStopAtOnce) {
  for (const char* command : {"preflight", "train"}) {
    const auto begin = std::chrono::steady_clock::now();
    const ChildResult result =
        run_child({"/bin/bash", "-c",
                   fmt::format("SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0 exec {} {} --config=run.ini "
                               "--train.run_dir=fresh --train.precision=fp32",
                               kProgram, command)},
                  folder_.path(), 60);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_NE(result.err.find("the launcher started 4 ranks, but MPI sees 1"), std::string::npos)
        << result.err;
    EXPECT_NE(result.err.find("srun --mpi=pmix"), std::string::npos) << result.err;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_FALSE(fs::exists(folder_.path() / "fresh"));
  }
}

}  // namespace
}  // namespace red::test

// launch/hosts.sh: machines whose agent is a script that runs here, so that two names are two machines to
// mpirun. Between network namespaces it runs in watchdog_network_test and run_campaign_test.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kHosts = RED_SOURCE_DIR "/launch/hosts.sh";
const std::string kSupervise = RED_SOURCE_DIR "/launch/supervise.sh";

constexpr int kUnfit = 9;

/// An agent for every machine but those whose names tell what is wrong with them. Each machine has a
/// temporary folder of its own: daemons that share one write one file of hwloc at once, and some crash; and
/// where that is allowed a name of its own, without which Open MPI 5 does not know whether they are one.
constexpr const char* kAgent =
    "#!/bin/bash\n"
    "host=$1; shift; words=\"$*\"\n"
    "echo \"Welcome to $host\"\n"
    "mkdir -p tmp/$host; export TMPDIR=$PWD/tmp/$host\n"
    "case $host in\n"
    "  dead) echo 'no route to host' >&2; exit 255 ;;\n"
    "  mute) sleep 100 ;;\n"
    "  elsewhere) words=${words//.redllm-hosts-/.no-such-} ;;\n"
    "  folderless) words=\"bash -s -- /no/such/folder ${words#bash -s -- * }\" ;;\n"
    "  older) words=${words/prog.sh/old.sh} ;;\n"
    "  bare) words=${words/prog.sh/gone.sh} ;;\n"
    "  daemonless) words=${words/ orted / no-such-daemon } words=${words/ prted / no-such-daemon } ;;\n"
    "esac\n"
    "unshare --uts true 2>/dev/null || exec bash -c \"$words\"\n"
    "exec unshare --uts bash -c \"hostname $host; $words\"\n";

class HostsTest : public testing::Test {
 protected:
  HostsTest() {
    write_bytes(folder_.path() / "agent.sh", kAgent);
    write_bytes(folder_.path() / "prog.sh", "#!/bin/bash\necho rank $OMPI_COMM_WORLD_RANK of $*\n");
    write_bytes(folder_.path() / "old.sh", "#!/bin/bash\necho old\n");
    run_child({"/bin/chmod", "+x", "agent.sh", "prog.sh", "old.sh"}, folder_.path());
  }

  ChildResult shell(const std::string& script) const {
    return run_child({"/bin/bash", "-c", script}, folder_.path(), 120);
  }
  /// hosts.sh with the agent; `words` as a shell takes them.
  ChildResult hosts(const std::string& words) const {
    return shell(kHosts + " --agent ./agent.sh --timeout 3 " + words);
  }

  WorkingDirectory folder_;
};

TEST_F(HostsTest, EveryRankOfEveryMachineRuns) {
  write_bytes(folder_.path() / "machines", "# two of them\nnorth slots=2\n\n  south  # one rank\n");
  const ChildResult result = hosts("--hostfile machines ./prog.sh 3 | sort");
  EXPECT_EQ(result.out.substr(result.out.find("rank 0")), "rank 0 of 3\nrank 1 of 3\nrank 2 of 3\n")
      << result.err;
  EXPECT_NE(result.err.find("2 machine(s) answer"), std::string::npos) << result.err;
  EXPECT_NE(result.out.find("sh_agent=./agent.sh"), std::string::npos) << result.out;
}

TEST_F(HostsTest, ADryRunPrintsCommandsAndStartsNothing) {
  const ChildResult result = hosts(
      "--hosts dead:2,mute --cores-per-rank 1 --interfaces eth7 --forward HOME --mpirun '--mca a b' "
      "--dry-run "
      "--preflight ./prog.sh train --resume never --train.steps=3");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  for (const char* part : {"hosts: OMPI_MCA_btl_tcp_if_include=eth7\n", "-n 3 --host dead:2\\,mute:1 ",
                           " -x HOME ", " --mca a b ", "./prog.sh preflight --train.steps=3\n",
                           "./prog.sh train --resume never --train.steps=3\n"})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\n" << result.out;
}

TEST_F(HostsTest, RanksAreBoundWhereTheirThreadsHaveCores) {
  const ChildResult bound = hosts("--hosts a --dry-run ./prog.sh --train.threads=1");
  EXPECT_NE(bound.out.find(" --bind-to core "), std::string::npos) << bound.out;
  const std::pair<const char*, const char*> cases[] = {
      {"--hosts a ./prog.sh --train.threads 9999", "1 rank(s) x 9999 threads (train.threads)"},
      {"--hosts a:9999 ./prog.sh", "more ranks than cores"},
      {"--hosts a --cores-per-rank 0 ./prog.sh", "--cores-per-rank 0"},
  };
  for (const auto& [words, reason] : cases) {
    const ChildResult result = hosts(fmt::format("--dry-run {}", words));
    EXPECT_NE(result.out.find(" --bind-to none "), std::string::npos) << result.out;
    EXPECT_NE(result.err.find(fmt::format("hosts: ranks are not bound: {}", reason)), std::string::npos)
        << result.err;
  }
}

TEST_F(HostsTest, WhatIsWrongWithAMachineIsNamedBeforeAnythingStarts) {
  const std::pair<const char*, const char*> cases[] = {
      {"dead", "dead: cannot be reached by `./agent.sh dead`, which ended with 255: no route to host"},
      {"mute", "mute: cannot be reached by `./agent.sh mute`, which ended with 124: no answer in 3 s"},
      {"elsewhere", "elsewhere: has another folder "},
      {"folderless", "folderless: has no folder /"},
      {"older", "older: has another program ./prog.sh (SHA-256 "},
      {"bare", "bare: has no program ./prog.sh"},
      {"daemonless", "daemonless: finds no "},
  };
  for (const auto& [host, complaint] : cases) {
    const ChildResult result = hosts(fmt::format("--hosts fine,{} ./prog.sh", host));
    EXPECT_EQ(result.exit_code, kUnfit) << host << result.err;
    EXPECT_NE(result.err.find(fmt::format("hosts: {}", complaint)), std::string::npos) << host << result.err;
    EXPECT_EQ(result.err.find("hosts: fine:"), std::string::npos) << result.err;
    EXPECT_EQ(result.out.find("rank"), std::string::npos) << result.out;
  }
  EXPECT_EQ(shell("ls -a | grep redllm-hosts").out, "");
}

TEST_F(HostsTest, WrongWordsAreRefused) {
  write_bytes(folder_.path() / "machines", "north slots=2\nsouth max_slots=3\n");
  const std::pair<const char*, const char*> cases[] = {
      {"./prog.sh", "no machine is given"},
      {"--hosts a,b", "no program is given"},
      {"--hosts a,b ./nothing", "there is no program ./nothing"},
      {"--hosts a,a ./prog.sh", "a is named twice"},
      {"--hosts a:0 ./prog.sh", "'0' is no number of ranks"},
      {"--hosts a,-b ./prog.sh", "'-b' is no name or IPv4 address"},
      {"--hostfile machines ./prog.sh", "machines:2: 'south max_slots=3'"},
      {"--hostfile nothing ./prog.sh", "--hostfile nothing: cannot be read"},
      {"--hosts a --ranks-per-host x ./prog.sh", "--ranks-per-host x"},
      {"--hosts a --hots b ./prog.sh", "there is no option --hots"},
      {"--hosts a --agent a:b ./prog.sh", "takes a colon for the end of a command"},
      {"--hosts", "--hosts needs a value"},
      {"--hosts a --dry-run --preflight ./prog.sh eval", "--preflight is for PROGRAM train"},
  };
  for (const auto& [words, complaint] : cases) {
    const ChildResult result = hosts(words);
    EXPECT_EQ(result.exit_code, 2) << words << result.err;
    EXPECT_NE(result.err.find(complaint), std::string::npos) << words << "\n" << result.err;
  }
}

TEST_F(HostsTest, MoreCoresThanAMachineHasAreRefused) {
  const ChildResult result = hosts("--hosts a --cores-per-rank 9999 ./prog.sh");
  EXPECT_EQ(result.exit_code, kUnfit) << result.err;
  EXPECT_NE(result.err.find("--cores-per-rank 9999, but a machine has only"), std::string::npos)
      << result.err;
}

// Under the supervisor a signal becomes a SIGUSR1 to mpirun, which hands it on to the machines.
TEST_F(HostsTest, ARunOverTwoMachinesIsTriedThenSavesWhenItIsAskedTo) {
  if (shell("mpirun --version | grep 'MPI) 5' && ! unshare --uts true").exit_code == 0)
    GTEST_SKIP() << "a machine cannot have a name of its own here, which Open MPI 5 asks for";
  copy_good_inputs(folder_.path());
  const std::string command = fmt::format(
      "{} --run-dir run2 -- {} --agent ./agent.sh --hosts north,south --preflight --preflight-options "
      "--slower-by=0.99 "
      "--mpirun '--mca btl_vader_single_copy_mechanism none --mca mpi_yield_when_idle 1' {} train "
      "--config=run.ini --train.run_dir=run2 --train.precision=fp32 --schedule.kind=constant "
      "--parallel.data=2 "
      "--train.micro_batch=1 --train.steps=100000 --checkpoint.every=0 --train.log_every=1",
      kSupervise, kHosts, kProgram);
  const ChildResult result = shell(fmt::format(
      "{} & pid=$!\n"
      "until [ \"$(wc -l 2>/dev/null <run2/metrics.jsonl)\" -ge 3 ] 2>/dev/null; do kill -0 $pid || exit 99; "
      "sleep 0.05; done\nkill -TERM $pid\n"
      "while :; do wait $pid; code=$?; kill -0 $pid 2>/dev/null || exit $code; done",
      command));
  EXPECT_EQ(result.exit_code, 75) << result.err << result.out;
  EXPECT_NE(result.err.find("2 ranks are fit for the run"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("asked to stop: saving step"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace red::test

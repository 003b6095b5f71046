// A checkpoint that cannot be read, because of a permission, a disk or a network file system, may well be
// whole: it keeps its name, and the program ends with the code of failed reading. Calls of the system are
// made to fail by a library that is preloaded (tests/faults/failing_files.cpp), which strikes root as well.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;

constexpr int kIoCode = 4;

struct Fault {
  const char* call;
  int number;  // errno
};

class UnreadableTest : public testing::Test {
 protected:
  UnreadableTest() { copy_good_inputs(folder_.path()); }

  ChildResult shell(const std::string& script) const {
    return run_child({"/bin/bash", "-c", script}, folder_.path(), 120);
  }
  static std::string training(const std::string& more) {
    return fmt::format(
        "{}/redllm train --config=run.ini --train.run_dir=run --train.precision=fp32 --checkpoint.every=2 {}",
        RED_BINARY_DIR, more);
  }
  /// What is put in front of a command: calls on paths with `path` in them fail behind the first `after`.
  static std::string failing(const Fault& fault, const std::string& path, int after, bool lasts) {
    return fmt::format(
        "LD_PRELOAD={}/tests/faults/libfailing_files.so FAULT_RANK=all FAULT_CALL={} FAULT_ERRNO={} "
        "FAULT_PATH={} "
        "FAULT_AFTER={} FAULT_LASTS={} ",
        RED_BINARY_DIR, fault.call, fault.number, path, after, lasts ? 1 : 0);
  }
  std::set<std::string> checkpoints() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_.path() / "run/checkpoints"))
      names.insert(entry.path().filename().string());
    return names;
  }

  WorkingDirectory folder_;
};

TEST_F(UnreadableTest, NothingIsSetAside) {
  ASSERT_EQ(shell(training("--train.steps=4")).exit_code, 0);
  const std::set<std::string> before = {"latest", "step-00000002", "step-00000004"};
  ASSERT_EQ(checkpoints(), before);
  for (const Fault& fault :
       {Fault{"open", EACCES}, Fault{"stat", ESTALE}, Fault{"pread", EIO}, Fault{"open", EMFILE}}) {
    for (const char* path : {"/step-00000004", "/step-00000004/shard-00000.h5"}) {
      SCOPED_TRACE(fmt::format("{} {} {}", fault.call, fault.number, path));
      const ChildResult result = shell(failing(fault, path, 0, true) + training("--train.steps=6"));
      EXPECT_EQ(result.exit_code, kIoCode) << result.err;
      EXPECT_NE(result.err.find(fmt::format("(errno {})", fault.number)), std::string::npos) << result.err;
      EXPECT_EQ(checkpoints(), before);
    }
  }
  const ChildResult result = shell(training("--train.steps=6"));
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("resuming run/checkpoints/step-00000004 at step 4"), std::string::npos)
      << result.err;
}

/// Each single call, HDF5's own among them.
TEST_F(UnreadableTest, EveryCallThatFailsSaysSo) {
  ASSERT_EQ(shell(training("--train.steps=2")).exit_code, 0);
  struct Case {
    Fault fault;
    int least;  // calls that a verification makes at least
  };
  for (const Case& c : {Case{{"open", EACCES}, 5}, Case{{"stat", ESTALE}, 3}, Case{{"pread", EIO}, 20}}) {
    SCOPED_TRACE(c.fault.call);
    int after = 0;
    for (; after < 1000; ++after) {
      const ChildResult result = shell(failing(c.fault, "/step-00000002", after, false) + RED_BINARY_DIR +
                                       "/redllm inspect checkpoint run/checkpoints/step-00000002 --verify");
      if (result.exit_code == 0) break;
      ASSERT_EQ(result.exit_code, kIoCode) << "call " << after << ": " << result.err;
    }
    EXPECT_GE(after, c.least);
    EXPECT_LT(after, 1000);
  }
}

}  // namespace
}  // namespace red::test

// The lock of a run's folder: who is refused, what is taken over, and what becomes of the run that lost it.
#include "train/run_lock.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "support/temporary_folder.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr RunLockTiming kQuick{milliseconds(20), milliseconds(400), milliseconds(50), milliseconds(20)};

/// A process that holds the lock until it is killed.
class HoldingProcess {
 public:
  explicit HoldingProcess(const fs::path& folder) {
    pid_ = ::fork();
    if (pid_ == 0) {
      const RunLock lock(folder, "other", kQuick);
      for (;;) ::pause();
    }
    while (!look_at_lock(folder) || !look_at_lock(folder)->holder)
      std::this_thread::sleep_for(milliseconds(1));
  }
  ~HoldingProcess() { kill(true); }
  HoldingProcess(const HoldingProcess&) = delete;
  HoldingProcess& operator=(const HoldingProcess&) = delete;

  /// Not waited for, it stays a zombie.
  void kill(bool wait) {
    if (pid_ == 0) return;
    ::kill(pid_, SIGKILL);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | (wait ? 0 : WNOWAIT));
    if (wait) pid_ = 0;
  }

 private:
  pid_t pid_;
};

class RunLockTest : public testing::Test {
 protected:
  void write(const RunHolder& holder, int seconds_old) const {
    const nlohmann::json json = {{"id", holder.id},       {"host", holder.host},
                                 {"place", holder.place}, {"job_id", holder.job_id},
                                 {"pid", holder.pid},     {"started", holder.started}};
    std::ofstream(path_) << json.dump() << "\n";
    fs::last_write_time(path_, fs::file_time_type::clock::now() - std::chrono::seconds(seconds_old));
  }
  std::string refusal() const {
    try {
      const RunLock lock(folder_.path(), "mine", kQuick);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "not refused";
  }
  std::string holder_id() const { return look_at_lock(folder_.path()).value().holder.value().id; }

  RunHolder elsewhere() const {
    RunHolder holder = own_holder("other");
    holder.host = holder.place = "far";
    holder.job_id = "1234";
    return holder;
  }

  test::TemporaryFolder folder_;
  const fs::path path_ = folder_.path() / "run.lock";
};

TEST_F(RunLockTest, IsHeldUntilItIsGivenBack) {
  {
    const RunLock lock(folder_.path(), "mine", kQuick);
    EXPECT_EQ(holder_id(), "mine");
    EXPECT_TRUE(may_be_alive(*look_at_lock(folder_.path())));
    EXPECT_NO_THROW(lock.check());
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(RunLockTest, IsRefusedWhileItsProcessLivesWhateverItsAge) {
  const HoldingProcess other(folder_.path());
  const std::string text = refusal();
  EXPECT_NE(text.find("is alive"), std::string::npos) << text;
  EXPECT_NE(text.find(look_at_lock(folder_.path())->holder->text()), std::string::npos) << text;
  EXPECT_EQ(holder_id(), "other");
}

TEST_F(RunLockTest, IsTakenOverAtOnceFromAProcessThatWasKilled) {
  for (const bool reaped : {true, false}) {
    HoldingProcess other(folder_.path());
    other.kill(reaped);
    const RunLock lock(folder_.path(), "mine", kQuick);
    EXPECT_EQ(holder_id(), "mine");
  }
}

TEST_F(RunLockTest, IsTakenOverFromAnotherProcessOfTheSameNumber) {
  RunHolder holder = own_holder("other");
  ++holder.started;
  write(holder, 0);
  EXPECT_EQ(refusal(), "not refused");
}

TEST_F(RunLockTest, OfAnotherHostIsTakenOverWhenNobodyRenewsIt) {
  for (const int seconds_old : {0, 1000, -1000}) {  // its clock may be another
    write(elsewhere(), seconds_old);
    EXPECT_EQ(refusal(), "not refused") << seconds_old;
  }
}

TEST_F(RunLockTest, OfAnotherHostIsRefusedWhenItIsRenewedUnderOurEyes) {
  for (const int seconds_old : {0, 1000}) {
    write(elsewhere(), seconds_old);
    std::atomic<bool> done{false};
    std::thread other([&] {
      while (!done) {
        ::utimensat(AT_FDCWD, path_.c_str(), nullptr, 0);
        std::this_thread::sleep_for(milliseconds(20));
      }
    });
    const std::string text = refusal();
    done = true;
    other.join();
    EXPECT_NE(text.find("job 1234 on host far"), std::string::npos) << text;
  }
}

TEST_F(RunLockTest, ThatCannotBeReadIsTakenOverWhenNobodyRenewsIt) {
  std::ofstream(path_) << "{\"id\": \"ot";
  EXPECT_EQ(refusal(), "not refused");
}

/// Until `condition` holds, ten seconds at most.
bool comes(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return false;
}

bool is_lost(const RunLock& lock) {
  try {
    lock.check();
    return false;
  } catch (const ConfigError&) {
    return true;
  }
}

TEST_F(RunLockTest, WhoeverLostItSeesThat) {
  RunLock lock(folder_.path(), "mine", kQuick);
  write(elsewhere(), 0);  // the same file: still ours
  EXPECT_FALSE(is_lost(lock));
  std::ofstream(folder_.path() / "aside") << "{}";
  fs::rename(folder_.path() / "aside", path_);
  EXPECT_TRUE(comes([&] { return is_lost(lock); }));
  lock.release();
  EXPECT_TRUE(fs::exists(path_));  // it is somebody else's
}

TEST_F(RunLockTest, IsMadeAgainWhenSomebodyRemovesIt) {
  const RunLock lock(folder_.path(), "mine", kQuick);
  fs::remove(path_);
  EXPECT_TRUE(comes([&] { return fs::exists(path_) && look_at_lock(folder_.path())->holder; }));
  EXPECT_EQ(holder_id(), "mine");
  EXPECT_FALSE(is_lost(lock));
}

TEST_F(RunLockTest, IsRenewed) {
  const RunLock lock(folder_.path(), "mine", kQuick);
  const int64_t first = look_at_lock(folder_.path())->renewed_ns;
  EXPECT_TRUE(comes([&] { return look_at_lock(folder_.path())->renewed_ns > first; }));
}

/// Takes the lock, and keeps it until a file `done` is there: 0. Refused: 1. Lost it: 2.
int take_and_keep(const fs::path& folder, const std::string& id) {
  try {
    const RunLock lock(folder, id, kQuick);
    comes([&] { return is_lost(lock) || fs::exists(folder / "done"); });
    return is_lost(lock) ? 2 : 0;
  } catch (const ConfigError&) {
    return 1;
  }
}

TEST_F(RunLockTest, OfManyWhoTakeOverAtOnceOneHasIt) {
  write(elsewhere(), 1000);
  constexpr int num_processes = 4;
  for (int i = 0; i < num_processes; ++i) {
    if (::fork() == 0) ::_exit(take_and_keep(folder_.path(), std::to_string(i)));
  }
  int ended = 0, kept = 0, status = 0;
  const auto collect = [&] {
    while (::waitpid(-1, &status, WNOHANG) > 0) {
      ++ended;
      kept += WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 1 : 0;
    }
    return ended;
  };
  EXPECT_TRUE(comes([&] { return collect() == num_processes - 1; }));
  std::ofstream(folder_.path() / "done") << "";
  EXPECT_TRUE(comes([&] { return collect() == num_processes; }));
  EXPECT_EQ(kept, 1);
}

}  // namespace
}  // namespace red::train

// RUN/run.lock: one run at a time writes into a folder. The lock is a small file that says who holds it (job,
// host, process) and whose time is renewed every few seconds; file locks are not used, because many network
// file systems lack working ones. docs/operations.md tells the rules.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

namespace red::train {

/// Who holds a folder.
struct RunHolder {
  std::string id;      ///< of the run, unique
  std::string host;    ///< for people
  std::string place;   ///< host, boot and process namespace: where `pid` means something
  std::string job_id;  ///< of the scheduler; empty: none
  int64_t pid = 0;
  uint64_t started = 0;  ///< the process's start in clock ticks since boot: numbers are used again

  /// "job 1234 on host n1, process 4711"
  std::string text() const;
};

/// Of this process.
RunHolder own_holder(const std::string& id);

/// Of a holder's process, as far as it can be seen from here.
enum class Process { alive, dead, elsewhere };
Process process_of(const RunHolder& holder);

struct RunLockTiming {
  std::chrono::milliseconds renew_every = std::chrono::seconds(5);
  /// A lock of another host that is not renewed for so long is nobody's.
  std::chrono::milliseconds dead_after = std::chrono::seconds(60);
  /// A process of this host that lives so long after it was first seen is no leftover that is being killed.
  std::chrono::milliseconds grace = std::chrono::seconds(2);
  /// After a lock was taken over, until it is clear that nobody did the same at the same time.
  std::chrono::milliseconds settle = std::chrono::milliseconds(500);
};

/// What lies in a folder.
struct LockSighting {
  std::optional<RunHolder> holder;  ///< nothing: it is being written, or damaged
  uint64_t inode = 0;
  int64_t renewed_ns = 0;  ///< the file's time, since 1970, by the file system's clock
  double age_s = 0.0;      ///< by this host's clock
};
std::optional<LockSighting> look_at_lock(const std::filesystem::path& run_dir);

/// Whether the holder may be running: its process lives here, or the lock of another host is fresh.
bool may_be_alive(const LockSighting& seen, const RunLockTiming& timing = {});

class RunLock {
 public:
  /// Takes the folder's lock, waiting for what is being killed and watching what cannot be seen from here.
  /// Throws ConfigError naming the holder when a run in the folder is alive, IoError when the file cannot be
  /// written.
  RunLock(const std::filesystem::path& run_dir, const std::string& id, const RunLockTiming& timing = {});
  ~RunLock() { release(); }
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

  /// Throws ConfigError when another run has taken the lock over: this process was out of reach for long.
  void check() const;
  /// Gives it back, once.
  void release() noexcept;

 private:
  bool create();
  bool is_nobodys(const LockSighting& first) const;
  [[noreturn]] void refuse(const LockSighting& seen) const;
  void take_over(const LockSighting& seen);
  bool is_own() const;
  void renew();
  void work();

  const std::filesystem::path run_dir_, path_;
  const RunLockTiming timing_;
  const std::string text_;  ///< of the file
  int descriptor_ = -1;
  std::atomic<bool> lost_{false};
  std::mutex mutex_;  ///< of the next two
  std::condition_variable changed_;
  bool closing_ = false;
  std::thread thread_;
};

}  // namespace red::train

// Holds what the watched threads of this process do (base/watch) against deadlines, and writes down what each
// of them does, with its stack, when a deadline of any rank has passed. Waits for other ranks have their
// deadline in the loop that waits (parallel/mpi_context).
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/stack_trace.hpp"
#include "base/watch.hpp"

namespace red::parallel {

struct WatchOptions {
  double compute_s = std::numeric_limits<double>::infinity();  ///< a watched thread at one place of its work
  double io_s = std::numeric_limits<double>::infinity();       ///< in one call that waits for a disk
  std::filesystem::path report_folder;                         ///< of rank_N.txt; empty: no such files
};

/// The main thread and other ranks.
struct MainWait {
  bool waits = false;         ///< for one of them
  double seconds = 0.0;       ///< since it began to, or last did
  double stuck_in_mpi_s = 0;  ///< it does not come back from MPI since so long; 0: it does
  std::string_view what;      ///< it waits for
};

/// Of one thread of the abort channel; no lock of its own.
class Watchdog {
 public:
  /// `name`: "rank 3 on n1", as it begins lines about this rank.
  Watchdog(const WatchOptions& options, int rank, const std::string& name);

  /// Whether there is anything to look at, and how long until the next look.
  bool watches() const;
  std::chrono::milliseconds interval() const;
  /// Names a thread of this process that is past its deadline. Looks that are far apart mean that the process
  /// was suspended: all times begin anew then.
  std::optional<std::string> look(const MainWait& wait);

  /// Remembers what all watched threads do and their stacks, as they are now. Takes up to a second for each
  /// that does not answer.
  void take_stacks();
  /// Writes report_folder/ended: the exit code of a run that was under way and is over. launch/supervise.sh
  /// looks there when the launcher does not end by itself. No longer than write_report().
  void write_end(int exit_code) const;
  /// Appends what was remembered to report_folder/rank_N.txt, under the run's failure and this rank's wait.
  /// For two seconds at most: the disk of that folder may be what everybody waits for.
  void write_report(const std::string& failure, const std::string& wait) const;
  /// The folder; empty: there will be no reports.
  std::string report_folder() const { return options_.report_folder.string(); }

 private:
  using Clock = std::chrono::steady_clock;
  struct Seen {
    watch::Doing doing;
    std::string kernel;  ///< what the system says of the thread
    bool answered = false;
    StackTrace trace;
  };
  struct Late {
    std::string doing;
    double seconds = 0.0, limit_s = 0.0;
  };
  std::optional<Late> late(const watch::Doing& doing, const MainWait* wait) const;
  std::string report(const std::string& failure, const std::string& wait) const;
  void write_within_time(const std::string& name, int flags, std::function<std::string()> text) const;

  WatchOptions options_;
  int rank_;
  std::string name_;
  Clock::time_point last_look_ = Clock::now();
  Clock::time_point resumed_;  ///< at the first look after a suspension
  std::vector<Seen> seen_;
};

}  // namespace red::parallel

// Saves that are written behind training. begin() takes shards that nobody changes any more; rank 0's I/O
// thread makes the folder; each process' own writes its file; when all have, rank 0's thread writes the index
// and publishes. The ranks tell each other how far they are at step boundaries alone, by a small all-reduce
// that is begun at one boundary and looked at at the next, so that no step waits for another rank's disk. All
// ranks see the same state at the same boundary. That a save fails they hear earlier, beside that
// (save_news).
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/io_thread.hpp"
#include "checkpoint/save_news.hpp"
#include "checkpoint/save_stages.hpp"
#include "checkpoint/shard_copy.hpp"

namespace red::checkpoint {

/// How a save ended, the same on every rank.
struct SaveResult {
  int64_t step = 0;
  double seconds = 0.0;  ///< from begin() to the boundary at which it was known
  std::string error;     ///< rank, host, path, errno; empty: the checkpoint is published
};

class BackgroundSaver {
 public:
  /// `world` must outlive it, and so must `notices`: over them a rank that fails tells all others at once,
  /// rank 0 says so in the log, and nobody goes on writing that save.
  BackgroundSaver(std::filesystem::path checkpoints_dir, const Retention& retention,
                  parallel::Communicator& world, parallel::NoticeBoard* notices = nullptr);
  /// Gives up a save that is still under way; what it wrote stays a step-N.partial.
  ~BackgroundSaver();
  BackgroundSaver(const BackgroundSaver&) = delete;
  BackgroundSaver& operator=(const BackgroundSaver&) = delete;

  // These four are collective.
  /// Idle only. Waits for no disk.
  void begin(const Metadata& metadata, ShardCopy copy);
  /// At the end of every step. Does not wait for a disk; for other ranks only in so far as they are a step
  /// behind.
  void at_step_boundary();
  /// Waits until idle.
  void finish();
  /// The result of the last save, once; nothing while it is under way.
  std::optional<SaveResult> take_result();

  bool idle() const { return stage_ == Stage::idle; }
  int64_t step() const { return step_; }  ///< of the last begin()

 private:
  enum class Stage {
    idle,
    preparing,   ///< rank 0: the folder
    writing,     ///< all ranks: their shard files
    publishing,  ///< rank 0: the index, the final name
    stopping,    ///< a rank failed: the others come to an end
    clearing,    ///< rank 0: removes what was written
  };
  /// What the threads work on; they share its ownership.
  struct Work;

  const char* stage_name() const;
  void start(std::function<void()> job);
  void ask();
  void conclude();
  void fail();
  void begin_writing();
  void begin_publishing();
  void end(std::string error);

  const std::filesystem::path checkpoints_dir_;
  const Retention retention_;
  parallel::Communicator& world_;
  Stage stage_ = Stage::idle;
  int64_t step_ = 0;
  int32_t save_ = 0;  ///< its number
  std::shared_ptr<SaveNews> news_;
  std::shared_ptr<Work> work_;
  std::chrono::steady_clock::time_point begun_;
  float state_[2] = {};  ///< failed, unfinished: the larger of all ranks
  parallel::Request request_;
  bool asked_ = false;  ///< and not concluded: the request may be empty
  std::optional<SaveResult> result_;
  IoThread thread_;  ///< last: ends before the rest
};

}  // namespace red::checkpoint

// The checkpoints of one run: when a save may begin, what becomes of one that fails, and what the log says of
// them. How a save works, the checkpoint folder knows.
#pragma once

#include <functional>
#include <memory>

#include "checkpoint/background_saver.hpp"
#include "config/run_config.hpp"
#include "train/engine.hpp"

namespace red::train {

class RunCheckpoints {
 public:
  /// `before_log` is called before a line goes to the log. `notices`: where saves behind training tell at
  /// once that they fail, or null. All but `before_log` must outlive this object.
  RunCheckpoints(const config::RunConfig& config, Engine& engine, Stream& stream,
                 parallel::Communicator& world, std::function<void()> before_log,
                 parallel::NoticeBoard* notices = nullptr);

  // All are collective. They throw CheckpointError on every rank after checkpoint.max_failures saves in a row
  // that failed.

  /// Saves the engine as it is: with checkpoint.async from a copy, behind what comes next, after waiting for
  /// an earlier save; otherwise at once. Other failures than too many are only logged.
  void save(const checkpoint::Metadata& metadata);
  /// At the end of every step.
  void at_step_boundary();
  /// Waits for what is under way. Throws CheckpointError when the last save of all failed.
  void finish();
  /// The same before the run ends for another reason: failures are only logged.
  void finish_before_failure();

 private:
  void save_now(const checkpoint::Metadata& metadata);
  void wait_for_earlier(int64_t step);
  void take_result();
  void report(const checkpoint::SaveResult& result);
  void stop_after_failures();

  const config::CheckpointConfig& config_;
  Engine& engine_;
  Stream& stream_;
  parallel::Communicator& world_;
  const std::filesystem::path dir_;
  const checkpoint::Retention retention_;
  std::function<void()> before_log_;
  double stood_still_s_ = 0.0;  ///< training, for the save that is under way
  int64_t failures_in_a_row_ = 0;
  std::string last_failure_;                            ///< empty: the last save went well
  std::unique_ptr<checkpoint::BackgroundSaver> saver_;  ///< checkpoint.async only
};

}  // namespace red::train

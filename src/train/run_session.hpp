// A run in its folder, from the moment it holds the folder's lock to its end, whatever that is: rank 0 keeps
// the lock, and runs.jsonl learns of start, training and end.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "parallel/communicator.hpp"
#include "parallel/layout.hpp"
#include "train/run_lock.hpp"
#include "train/run_log.hpp"
#include "train/step_mark.hpp"

namespace red::train {

class RunSession {
 public:
  /// Makes the folder and takes its lock on rank 0, before anything in it is touched; the others wait,
  /// however long that takes. Collective. Throws on every rank what RunLock throws.
  RunSession(const std::filesystem::path& run_dir, const parallel::Layout& layout,
             parallel::Communicator& world, const RunLockTiming& timing = {});

  /// Training begins when so many steps are done.
  void training_begins(int64_t step, int64_t steps, const std::optional<std::filesystem::path>& checkpoint);
  void step_begins(int64_t step) noexcept;
  void returned(const RunReturn& r) noexcept;
  /// Throws ConfigError, on rank 0, when another run has taken the folder over.
  void step_done(int64_t step);
  /// The last act; of several the first counts. `speaks` on the one rank that writes down how it ended.
  void end(int exit_code, std::string_view reason, bool speaks) noexcept;

 private:
  void start(const parallel::Layout& layout, int num_ranks, const RunLockTiming& timing);

  const std::filesystem::path run_dir_;
  RunStart start_;
  int64_t step_ = 0;
  bool has_ended_ = false;
  std::unique_ptr<RunLock> lock_;   ///< rank 0
  std::unique_ptr<StepMark> mark_;  ///< rank 0, while it trains
};

}  // namespace red::train

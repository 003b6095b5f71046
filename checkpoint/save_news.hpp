// What a process has heard of saves that fail, before the ranks agree on it at a step boundary: rank 0 says
// so in the log, and threads stop writing in vain. It decides nothing. Shared by the saver, its I/O thread,
// which may be left behind, and the board's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "parallel/notices.hpp"

namespace red::checkpoint {

class SaveNews {
 public:
  /// Without a board nobody hears of other ranks' failures but at the boundary.
  static std::shared_ptr<SaveNews> listen(parallel::NoticeBoard* board);
  /// Tells and hears nothing any more: the board may die.
  void leave();

  /// Begins the next one: its number, the same on all ranks, and larger than any before.
  int32_t new_save();
  /// Nobody wants this save any more, nor an earlier one. False when that was known.
  bool give_up(int32_t save);
  bool given_up(int32_t save) const { return given_up_.load(std::memory_order_relaxed) >= save; }
  /// To all ranks, from any thread; of a save that is given up already nobody wants to hear.
  void tell(int32_t save, const std::string& text);

 private:
  explicit SaveNews(parallel::NoticeBoard* board) : board_(board) {}

  std::mutex mutex_;  ///< of the pointer; the listener does without
  parallel::NoticeBoard* board_;
  int32_t last_save_ = 0;             ///< where there is no board to count them
  std::atomic<int32_t> given_up_{0};  ///< this one and all before
};

}  // namespace red::checkpoint

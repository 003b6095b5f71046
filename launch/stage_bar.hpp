// How far a long command is, on standard error: a bar rewritten in place on a terminal, a line now and then
// elsewhere. Never slower than it helps: most calls only look at the clock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

namespace red::launch {

class StageBar {
 public:
  StageBar();
  ~StageBar();
  StageBar(const StageBar&) = delete;
  StageBar& operator=(const StageBar&) = delete;

  /// `stage` must live on; `detail` is shown behind the bar ("3.2 M tokens, 41 MiB/s") and made only when it
  /// is.
  template <class Detail>
  void show(std::string_view stage, uint64_t done, uint64_t total, Detail detail) {
    if (is_due(stage)) draw(done, total, detail(seconds()));
  }
  double seconds() const;  ///< since the stage began

 private:
  bool is_due(std::string_view stage);
  void draw(uint64_t done, uint64_t total, const std::string& detail);
  void end_line();

  using Clock = std::chrono::steady_clock;
  bool terminal_, line_open_ = false;
  std::string_view stage_;
  Clock::time_point begin_, last_;
};

/// Says every second (on a terminal) or every half minute that something without steps of its own still runs.
class StillRunning {
 public:
  explicit StillRunning(std::string what);
  ~StillRunning();
  StillRunning(const StillRunning&) = delete;
  StillRunning& operator=(const StillRunning&) = delete;

 private:
  void tell();

  std::string what_;
  bool terminal_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool end_ = false;
  std::jthread thread_;
};

}  // namespace red::launch

#include "launch/stage_bar.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace red::launch {
namespace {

constexpr const char* kClearLine = "\r\x1b[K";

bool is_terminal() {
  return isatty(STDERR_FILENO) != 0;
}

double seconds_between(std::chrono::steady_clock::time_point begin,
                       std::chrono::steady_clock::time_point end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace

StageBar::StageBar() : terminal_(is_terminal()), begin_(Clock::now()), last_(begin_) {}

StageBar::~StageBar() {
  end_line();
}

double StageBar::seconds() const {
  return seconds_between(begin_, Clock::now());
}

bool StageBar::is_due(std::string_view stage) {
  const auto now = Clock::now();
  if (stage != stage_) {
    end_line();
    stage_ = stage;
    begin_ = last_ = now;
    return false;
  }
  if (seconds_between(last_, now) < (terminal_ ? 0.1 : 10.0)) return false;
  last_ = now;
  return true;
}

void StageBar::draw(uint64_t done, uint64_t total, const std::string& detail) {
  const double share =
      total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  if (terminal_) {
    const auto filled = static_cast<std::size_t>(30 * share);
    fmt::print(stderr, "{}{:<8} [{:<30}] {:3.0f} %  {}", kClearLine, stage_, std::string(filled, '#'),
               100 * share, detail);
    line_open_ = true;
  } else {
    fmt::print(stderr, "{}: {:.0f} %, {}\n", stage_, 100 * share, detail);
  }
  std::fflush(stderr);
}

void StageBar::end_line() {
  if (line_open_) fmt::print(stderr, "{}", kClearLine);
  line_open_ = false;
}

StillRunning::StillRunning(std::string what) : what_(std::move(what)), terminal_(is_terminal()) {
  thread_ = std::jthread([this] { tell(); });
}

StillRunning::~StillRunning() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  ended_.notify_one();
  thread_.join();
  if (terminal_) fmt::print(stderr, "{}", kClearLine);
}

void StillRunning::tell() {
  const auto begin = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, std::chrono::seconds(terminal_ ? 1 : 30), [&] { return end_; })) {
    const double seconds = seconds_between(begin, std::chrono::steady_clock::now());
    fmt::print(stderr, "{}{}, {:.0f} s so far{}", terminal_ ? kClearLine : "", what_, seconds,
               terminal_ ? "" : "\n");
    std::fflush(stderr);
  }
}

}  // namespace red::launch

#include "train/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

namespace red::train {
namespace {

constexpr auto kQuietInterval = std::chrono::seconds(5);
constexpr double kSmoothing = 0.1;

}  // namespace

std::string duration(double seconds) {
  const int64_t s = std::llround(seconds);
  if (s >= 86400) return fmt::format("{} d {:02} h", s / 86400, s % 86400 / 3600);
  if (s >= 3600) return fmt::format("{} h {:02} min", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{} min {:02} s", s / 60, s % 60);
  return fmt::format("{} s", s);
}

Progress::Progress(int64_t total_steps, bool enabled)
    : total_steps_(total_steps), enabled_(enabled), terminal_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() {
  end_line();
}

namespace {

std::string share_of_peak(const StepMetrics& m) {
  if (m.mfu > 0.0) return fmt::format(" ({:.1f} % MFU)", 100 * m.mfu);
  return m.peak_share > 0.0 ? fmt::format(" ({:.0f} % of peak)", 100 * m.peak_share) : std::string();
}

}  // namespace

void Progress::show(const StepMetrics& m) {
  seconds_per_step_ =
      seconds_per_step_ == 0.0 ? m.step_s : (1 - kSmoothing) * seconds_per_step_ + kSmoothing * m.step_s;
  if (!enabled_) return;
  const auto now = std::chrono::steady_clock::now();
  const bool last_step = m.step == total_steps_;
  if (!terminal_ && !last_step && now - last_ < kQuietInterval) return;
  last_ = now;
  const double left = seconds_per_step_ * static_cast<double>(total_steps_ - m.step);
  const std::string line =
      fmt::format("step {}/{}  loss {:.4f}  {:.0f} tokens/s  {:.1f} GFLOP/s{}  {} left{}", m.step,
                  total_steps_, m.result.loss, m.tokens_per_s, m.model_gflops_per_s, share_of_peak(m),
                  duration(left), m.result.applied ? "" : "  SKIPPED");
  if (terminal_) {
    fmt::print(stderr, "\r\x1b[K{}", line);
    line_open_ = true;
  } else {
    fmt::print(stderr, "{}\n", line);
  }
  std::fflush(stderr);
}

void Progress::end_line() {
  if (line_open_) fmt::print(stderr, "\n");
  line_open_ = false;
}

}  // namespace red::train

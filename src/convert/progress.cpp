#include "convert/progress.hpp"

#include <algorithm>
#include <utility>

#include "base/log.hpp"

namespace red::convert {
namespace {

constexpr std::chrono::seconds kBetweenLines{2};

double mib(uint64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

}  // namespace

Progress::Progress(std::string what, uint64_t total_bytes) : what_(std::move(what)), total_(total_bytes) {
  log::info("{}: {:.1f} MiB", what_, mib(total_));
}

void Progress::add(uint64_t num_bytes) {
  done_ += num_bytes;
  const Clock::time_point now = Clock::now();
  if (now - told_ < kBetweenLines) return;
  told_ = now;
  log::info("{}: {:.0f} %, {:.1f} of {:.1f} MiB", what_,
            100.0 * static_cast<double>(done_) / static_cast<double>(std::max<uint64_t>(total_, 1)),
            mib(done_), mib(total_));
}

void Progress::finish() const {
  const double seconds = std::chrono::duration<double>(Clock::now() - begin_).count();
  log::info("{}: done, {:.1f} MiB in {:.1f} s", what_, mib(done_), seconds);
}

}  // namespace red::convert

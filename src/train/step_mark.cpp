#include "train/step_mark.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "base/log.hpp"
#include "base/watch.hpp"

namespace red::train {

std::filesystem::path step_mark_path(const std::filesystem::path& run_dir) {
  return run_dir / "at_step";
}

std::optional<int64_t> read_step_mark(const std::filesystem::path& run_dir) {
  std::ifstream in(step_mark_path(run_dir));
  int64_t step = 0;
  if (!(in >> step) || step < 1) return std::nullopt;
  return step;
}

StepMark::StepMark(const std::filesystem::path& run_dir) noexcept : path_(step_mark_path(run_dir)) {
  const watch::BlockingPoint opening("opening", path_.native());
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg)
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) give_up("open");
}

StepMark::~StepMark() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void StepMark::give_up(const char* what) noexcept {
  log::warning("{}: cannot {}: {}; a step that fails every time will not be known", path_.string(), what,
               std::strerror(errno));
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

/// Always of the same length, so that nothing of the number before is left.
void StepMark::write(int64_t step) noexcept {
  if (descriptor_ < 0) return;
  const watch::BlockingPoint writing("writing", path_.native());
  std::array<char, 32> text{};
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-vararg): allocates nothing
  const int length = std::snprintf(text.data(), text.size(), "%-20lld\n", static_cast<long long>(step));
  if (::pwrite(descriptor_, text.data(), static_cast<std::size_t>(length), 0) != length) give_up("write");
}

}  // namespace red::train

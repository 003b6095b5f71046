// RUN/at_step: the step that training is in, for whoever finds the run dead. Rank 0 writes it before every
// step, one small write into the kernel's memory, which outlives a process that is killed; where the machine
// itself is lost it may be a few steps old.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

namespace red::train {

std::filesystem::path step_mark_path(const std::filesystem::path& run_dir);
/// Nothing: no run was in a step there, or it cannot be read.
std::optional<int64_t> read_step_mark(const std::filesystem::path& run_dir);

class StepMark {
 public:
  /// A failure is only logged, once: the run matters more.
  explicit StepMark(const std::filesystem::path& run_dir) noexcept;
  ~StepMark();
  StepMark(const StepMark&) = delete;
  StepMark& operator=(const StepMark&) = delete;

  void write(int64_t step) noexcept;

 private:
  void give_up(const char* what) noexcept;

  const std::filesystem::path path_;
  int descriptor_ = -1;  ///< -1: given up
};

}  // namespace red::train

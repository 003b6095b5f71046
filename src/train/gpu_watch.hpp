// Looks at the sensors of this rank's GPU while a run goes on, and warns when heat, the power brake or broken
// memory begin, or the GPU is gone. On a CPU, and without NVIDIA's management library, there is nothing to
// look at.
#pragma once

#include <memory>
#include <optional>

#include "device/gpu_sensors.hpp"

namespace red::train {

class GpuWatch {
 public:
  /// Says in one line where a GPU has no sensors.
  GpuWatch();

  /// Now, and a warning from this rank for what is new since the last time.
  std::optional<GpuState> look();
  /// What there is to say where the last look found the GPU lost; else empty.
  const std::string& loss() const { return loss_; }

 private:
  std::unique_ptr<GpuSensors> sensors_;  ///< null on a CPU
  std::string name_, loss_;
  bool slowed_ = false;
  int64_t ecc_errors_ = 0;
};

}  // namespace red::train

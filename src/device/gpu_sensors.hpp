// What a GPU's own sensors say: clocks, temperature, power, what slows it down, memory errors. From NVIDIA's
// management library (NVML), which comes with the driver and is loaded when it is first asked: a machine
// without it has no sensors, and nothing fails. No CUDA in it.
//
// RED_NVML names another library in its place. Source of calls and numbers: NVIDIA's NVML API reference.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace red {

/// Of one moment. What a GPU does not tell is not there.
struct GpuState {
  std::optional<double> sm_mhz, memory_mhz;  ///< clocks
  std::optional<double> temperature_c, power_w;
  std::optional<double> power_limit_w;  ///< that holds: the card's own, or less where somebody set it
  std::optional<int64_t> ecc_errors;    ///< of memory, not corrected, since the driver was loaded
  bool power_capped = false;  ///< held at its power limit, as a busy GPU often is: not in `slowed_by`
  std::vector<std::string> slowed_by;  ///< what should not be: heat, the power brake
  std::string lost;  ///< NVML's words where it cannot reach the GPU any more: then nothing else is there
};

/// Ends a run whose GPU is gone, as if its machine were: the code of lost ranks.
class GpuLostError : public Error {
 public:
  explicit GpuLostError(const std::string& message) : Error(ExitCode::communication, message) {}
};

/// For messages: which GPU, NVML's words, and what to do.
std::string loss_text(const std::string& gpu, const std::string& lost);

class GpuSensors {
 public:
  /// Of the GPU at this PCI address ("0000:19:00.0"); library: as RED_NVML, which it defaults to. Of a GPU
  /// that is divided (MIG) all that is here is the whole GPU's: instances share cooling, power and memory
  /// chips.
  explicit GpuSensors(const std::string& pci_address, const char* library = nullptr);
  ~GpuSensors();
  GpuSensors(const GpuSensors&) = delete;
  GpuSensors& operator=(const GpuSensors&) = delete;

  /// Why there are none; empty when there are.
  const std::string& absent() const { return absent_; }
  /// Of the driver, as nvidia-smi gives it; empty where there are no sensors.
  const std::string& driver() const { return driver_; }
  /// Takes about a millisecond, and the values change about once a second. Nothing where there are no
  /// sensors.
  std::optional<GpuState> read() const;

 private:
  struct Library;
  std::unique_ptr<Library> library_;
  void* device_ = nullptr;
  std::string absent_, driver_;
  std::string lost_;  ///< at the start already
};

}  // namespace red

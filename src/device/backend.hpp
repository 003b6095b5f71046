// What the linked backend asks of the run that begins.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace red {

struct GpuFacts {
  std::string name;                    ///< as NVIDIA calls it: "NVIDIA H100 80GB HBM3"
  int index = 0;                       ///< among those that this process sees
  std::string pci_address;             ///< "0000:19:00.0", as in /sys/bus/pci/devices
  std::array<uint8_t, 16> identity{};  ///< what no other GPU has, on this host or another; instances of one
                                       ///< that is divided (MIG) share an address and differ in this
};

/// Throws ConfigError when this process cannot compute as one of so many ranks: without a GPU that the
/// program was made for, say. Before anything is allocated.
void require_backend(int num_ranks);

/// "cpu" or "cuda", whatever is there to run on.
std::string_view backend_name();

/// What this process computes on, for logs and figures: "CPU", or "GPU 2 of 4, NVIDIA H100 80GB HBM3, sm_90".
std::string device_description();

/// The GPU that this process computes on; nothing on a CPU. Throws ConfigError as require_backend does.
std::optional<GpuFacts> gpu_facts();

/// Bytes of that GPU's memory that nobody has taken, this process least of all. Nothing on a CPU.
std::optional<std::size_t> free_gpu_memory();

/// What must be equal on all ranks of a run: CUDA's runtime, and the newest CUDA that the driver is for.
/// Empty on a CPU. Throws ConfigError as require_backend does.
std::map<std::string, std::string> backend_versions();

}  // namespace red

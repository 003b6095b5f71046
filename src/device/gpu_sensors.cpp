#include "device/gpu_sensors.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "base/log.hpp"

namespace red {
namespace {

// nvml.h is not there when this is compiled: its names with our own types, which are C's.
using Return = int;
using Device = void*;
constexpr Return kSuccess = 0, kGpuIsLost = 15, kResetRequired = 16;
constexpr int kSmClock = 1, kMemoryClock = 2;    // nvmlClockType_t
constexpr int kGpuTemperature = 0;               // nvmlTemperatureSensors_t
constexpr int kUncorrected = 1, kSinceLoad = 0;  // nvmlMemoryErrorType_t, nvmlEccCounterType_t

struct Reason {
  uint64_t bit;
  const char* name;
};
// nvmlClocksEventReasons: those that halve the clocks or more, and the driver's own brake against heat.
constexpr std::array kReasons = {
    Reason{0x20, "heat (slowed by the driver)"}, Reason{0x40, "heat (slowed by the hardware)"},
    Reason{0x80, "the power brake of its power supply"}, Reason{0x08, "the hardware, for heat or power"}};
constexpr uint64_t kPowerCap = 0x04, kHardware = 0x08, kHardwareOfKind = 0x40 | 0x80;

/// It fell off the bus, or does nothing before it is reset.
bool is_loss(Return result) {
  return result == kGpuIsLost || result == kResetRequired;
}

/// What slows it, each once: the general bit says nothing beside a special one.
std::vector<std::string> names_of(uint64_t reasons) {
  if ((reasons & kHardwareOfKind) != 0) reasons &= ~kHardware;
  std::vector<std::string> names;
  for (const Reason& reason : kReasons) {
    if ((reasons & reason.bit) != 0) names.emplace_back(reason.name);
  }
  return names;
}

}  // namespace

std::string loss_text(const std::string& gpu, const std::string& lost) {
  return fmt::format(
      "{} is lost, NVML says \"{}\": restart the machine, or leave it out; dmesg has the driver's reason "
      "(Xid)",
      gpu, lost);
}

struct GpuSensors::Library {
  explicit Library(const char* name) : handle(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
    if (handle == nullptr) {
      problem = dlerror();
      return;
    }
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(error_text, "nvmlErrorString");
    find(driver_version, "nvmlSystemGetDriverVersion");
    find(by_pci_address, "nvmlDeviceGetHandleByPciBusId_v2");
    find(clock, "nvmlDeviceGetClockInfo");
    find(temperature, "nvmlDeviceGetTemperature");
    find(power, "nvmlDeviceGetPowerUsage");
    find(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find(ecc_errors, "nvmlDeviceGetTotalEccErrors");
    // Since driver 535; before it was nvmlDeviceGetCurrentClocksThrottleReasons, which later ones have too.
    if (dlsym(handle, "nvmlDeviceGetCurrentClocksEventReasons") != nullptr)
      find(reasons, "nvmlDeviceGetCurrentClocksEventReasons");
    else
      find(reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    if (!problem.empty()) return;
    const Return result = init();
    initialized = result == kSuccess;
    if (!initialized) problem = fmt::format("nvmlInit_v2: {}", error_text(result));
  }
  ~Library() {
    if (initialized && shutdown() != kSuccess) log::rank_warning("nvmlShutdown failed");
    if (handle != nullptr) dlclose(handle);
  }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  template <class Function>
  void find(Function*& function, const char* symbol) {
    function = reinterpret_cast<Function*>(dlsym(handle, symbol));
    if (function == nullptr && problem.empty()) problem = fmt::format("it has no {}", symbol);
  }

  void* handle = nullptr;
  std::string problem;
  bool initialized = false;
  Return (*init)() = nullptr;
  Return (*shutdown)() = nullptr;
  const char* (*error_text)(Return) = nullptr;
  Return (*driver_version)(char*, unsigned) = nullptr;
  Return (*by_pci_address)(const char*, Device*) = nullptr;
  Return (*clock)(Device, int, unsigned*) = nullptr;
  Return (*temperature)(Device, int, unsigned*) = nullptr;
  Return (*power)(Device, unsigned*) = nullptr;
  Return (*power_limit)(Device, unsigned*) = nullptr;
  Return (*ecc_errors)(Device, int, int, unsigned long long*) = nullptr;
  Return (*reasons)(Device, unsigned long long*) = nullptr;
};

GpuSensors::GpuSensors(const std::string& pci_address, const char* library) {
  const char* named = library != nullptr ? library : std::getenv("RED_NVML");
  library_ = std::make_unique<Library>(named != nullptr ? named : "libnvidia-ml.so.1");
  absent_ = library_->problem;
  if (!absent_.empty()) return;
  const Return found = library_->by_pci_address(pci_address.c_str(), &device_);
  if (is_loss(found)) {
    lost_ = library_->error_text(found);
  } else if (found != kSuccess) {
    absent_ = fmt::format("NVML finds no GPU at {}: {}", pci_address, library_->error_text(found));
    return;
  }
  std::array<char, 96> version{};
  if (library_->driver_version(version.data(), version.size()) == kSuccess) driver_ = version.data();
}

GpuSensors::~GpuSensors() = default;

std::optional<GpuState> GpuSensors::read() const {
  if (!absent_.empty()) return std::nullopt;
  GpuState state;
  state.lost = lost_;
  if (!state.lost.empty()) return state;
  const auto told = [&](Return result) {
    if (is_loss(result)) state.lost = library_->error_text(result);
    return result == kSuccess;
  };
  unsigned number = 0;
  unsigned long long wide = 0;
  if (told(library_->clock(device_, kSmClock, &number))) state.sm_mhz = number;
  if (told(library_->clock(device_, kMemoryClock, &number))) state.memory_mhz = number;
  if (told(library_->temperature(device_, kGpuTemperature, &number))) state.temperature_c = number;
  if (told(library_->power(device_, &number))) state.power_w = 1e-3 * number;  // of milliwatts
  if (told(library_->power_limit(device_, &number))) state.power_limit_w = 1e-3 * number;
  if (told(library_->ecc_errors(device_, kUncorrected, kSinceLoad, &wide)))
    state.ecc_errors = static_cast<int64_t>(wide);
  const uint64_t reasons = told(library_->reasons(device_, &wide)) ? wide : 0;
  state.slowed_by = names_of(reasons);
  state.power_capped = (reasons & kPowerCap) != 0;
  return state;
}

}  // namespace red

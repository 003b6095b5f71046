// What stands for libnvidia-ml.so.1 in tests: it says what FAKE_NVML has it say, of every GPU whose PCI
// address is below 0000:20. FAKE_NVML="sm=1980 memory=2619 temperature=61 milliwatts=412000 limit=700000
// ecc=0 reasons=0x44": a number that is not there is not supported. "uninitialized": there is no driver;
// "lost": the GPU does not answer; "gone": nor is it found any more; "reset": it must be reset.
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kSuccess = 0, kInvalidArgument = 2, kNotSupported = 3, kNotFound = 6, kDriverNotLoaded = 9,
              kGpuIsLost = 15, kResetRequired = 16;
int the_gpu = 0;

std::string words() {
  const char* text = std::getenv("FAKE_NVML");
  return text != nullptr ? std::string(" ") + text + " " : " ";
}

bool says(const std::string& word) {
  return words().find(" " + word + " ") != std::string::npos;
}

int tell(void* device, const std::string& key, unsigned long long& value) {
  if (device != &the_gpu) return kInvalidArgument;
  if (says("lost")) return kGpuIsLost;
  if (says("reset")) return kResetRequired;
  const std::string all = words();
  const std::size_t at = all.find(" " + key + "=");
  if (at == std::string::npos) return kNotSupported;
  value = std::strtoull(all.c_str() + at + key.size() + 2, nullptr, 0);
  return kSuccess;
}

int tell(void* device, const std::string& key, unsigned* value) {
  unsigned long long wide = 0;
  const int result = tell(device, key, wide);
  if (result == kSuccess) *value = static_cast<unsigned>(wide);
  return result;
}

}  // namespace

extern "C" {

int nvmlInit_v2() {
  return says("uninitialized") ? kDriverNotLoaded : kSuccess;
}
int nvmlShutdown() {
  return kSuccess;
}
const char* nvmlErrorString(int result) {
  switch (result) {
    case kNotFound:
      return "Not Found";
    case kDriverNotLoaded:
      return "Driver Not Loaded";
    case kGpuIsLost:
      return "GPU is lost";
    case kResetRequired:
      return "GPU requires reset";
    default:
      return "Unknown Error";
  }
}
int nvmlSystemGetDriverVersion(char* version, unsigned length) {
  std::strncpy(version, "580.65.06", length);
  return kSuccess;
}
int nvmlDeviceGetHandleByPciBusId_v2(const char* address, void** device) {
  if (std::string(address) >= "0000:20") return kNotFound;
  if (says("gone")) return kGpuIsLost;
  *device = &the_gpu;
  return kSuccess;
}
int nvmlDeviceGetClockInfo(void* device, int type, unsigned* mhz) {
  if (type == 1) return tell(device, "sm", mhz);
  return type == 2 ? tell(device, "memory", mhz) : kInvalidArgument;
}
int nvmlDeviceGetTemperature(void* device, int sensor, unsigned* celsius) {
  return sensor == 0 ? tell(device, "temperature", celsius) : kInvalidArgument;
}
int nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
  return tell(device, "milliwatts", milliwatts);
}
int nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* milliwatts) {
  return tell(device, "limit", milliwatts);
}
int nvmlDeviceGetTotalEccErrors(void* device, int type, int counter, unsigned long long* count) {
  return type == 1 && counter == 0 ? tell(device, "ecc", *count) : kInvalidArgument;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
  return tell(device, "reasons", *reasons);
}

}  // extern "C"

#include "device/max_cpu.hpp"

#include <hwy/targets.h>

#include <cstdlib>
#include <string_view>

#include "base/error.hpp"

namespace red::detail {
namespace {

constexpr const char* kVariable = "RED_MAX_CPU";

#if HWY_ARCH_X86
/// Highway's names go from the best to the least.
constexpr int64_t kBeyondAvx2 = HWY_AVX2 - 1;

void set_where_unset(const char* name, const char* value) {
  setenv(name, value, 0);
}

MaxCpu read_and_tell() {
  const char* text = std::getenv(kVariable);
  const std::string_view name = text == nullptr ? "" : text;
  if (name.empty()) return MaxCpu::all;
  if (name == "avx512") {
    set_where_unset("DNNL_MAX_CPU_ISA", "AVX512_CORE_BF16");
    return MaxCpu::avx512;
  }
  if (name != "avx2") throw ConfigError("{} = {}: avx2, avx512, or unset", kVariable, name);
  hwy::DisableTargets(kBeyondAvx2);
  set_where_unset("DNNL_MAX_CPU_ISA", "AVX2");
  set_where_unset("OPENBLAS_CORETYPE", "Haswell");
  return MaxCpu::avx2;
}
#else
MaxCpu read_and_tell() {
  if (std::getenv(kVariable) != nullptr)
    throw ConfigError("{} is for x86-64 processors; unset it", kVariable);
  return MaxCpu::all;
}
#endif

}  // namespace

MaxCpu max_cpu() {
  static const MaxCpu most = read_and_tell();
  return most;
}

std::string max_cpu_text() {
  if (max_cpu() == MaxCpu::all) return "";
  return fmt::format(", at most {} ({})", max_cpu() == MaxCpu::avx2 ? "avx2" : "avx512", kVariable);
}

}  // namespace red::detail

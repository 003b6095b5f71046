#include "device/gpu_specs.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

namespace red {
namespace {

constexpr std::array kSpecs = {
    // name, bf16, tf32, fp32 TFLOP/s, GB/s, GiB, further names
    GpuSpecs{"NVIDIA A100-SXM4-40GB", 312, 156, 19.5, 1555, 40, "a10040gb a100sxm40gb"},
    GpuSpecs{"NVIDIA A100-PCIE-40GB", 312, 156, 19.5, 1555, 40, "a100pcie40gb"},
    GpuSpecs{"NVIDIA A100-SXM4-80GB", 312, 156, 19.5, 2039, 80, "a100 a10080gb a100sxm a100sxm80gb"},
    GpuSpecs{"NVIDIA A100 80GB PCIe", 312, 156, 19.5, 1935, 80, "a100pcie a100pcie80gb"},
    GpuSpecs{"NVIDIA A30", 165, 82, 10.3, 933, 24, ""},
    GpuSpecs{"NVIDIA A40", 149.7, 74.8, 37.4, 696, 48, ""},
    GpuSpecs{"NVIDIA A10", 125, 62.5, 31.2, 600, 24, ""},
    GpuSpecs{"NVIDIA L4", 121, 60, 30.3, 300, 24, ""},
    GpuSpecs{"NVIDIA L40", 181.05, 90.5, 90.5, 864, 48, ""},
    GpuSpecs{"NVIDIA L40S", 362.05, 183, 91.6, 864, 48, ""},
    GpuSpecs{"NVIDIA H100 80GB HBM3", 989.5, 494.5, 67, 3350, 80, "h100 h100sxm h100sxm5"},
    GpuSpecs{"NVIDIA H100 PCIe", 756.5, 378, 51, 2000, 80, ""},
    GpuSpecs{"NVIDIA H100 NVL", 835.5, 417.5, 60, 3900, 94, ""},
    GpuSpecs{"NVIDIA H200", 989.5, 494.5, 67, 4800, 141, "h200sxm"},
    GpuSpecs{"NVIDIA H200 NVL", 835.5, 417.5, 60, 4800, 141, ""},
    GpuSpecs{"NVIDIA GH200 480GB", 989.5, 494.5, 67, 4000, 96, "gh200 gh20096gb"},
    GpuSpecs{"NVIDIA GH200 144G HBM3e", 989.5, 494.5, 67, 4900, 144, "gh200144gb"},
    GpuSpecs{"NVIDIA B200", 2250, 1100, 75, 7700, 180, "b200sxm"},
    GpuSpecs{"NVIDIA GB200", 2500, 1250, 80, 8000, 186, ""},
};

/// Letters and digits alone, small, without the maker.
std::string comparable(std::string_view name) {
  std::string result;
  for (const char c : name) {
    const auto letter = static_cast<unsigned char>(c);
    if (std::isalnum(letter) != 0) result += static_cast<char>(std::tolower(letter));
  }
  constexpr std::string_view maker = "nvidia";
  if (result.starts_with(maker)) result.erase(0, maker.size());
  return result;
}

bool is_among(std::string_view word, std::string_view words) {
  while (!words.empty()) {
    const std::size_t end = std::min(words.find(' '), words.size());
    if (words.substr(0, end) == word) return true;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return false;
}

}  // namespace

const GpuSpecs* find_gpu_specs(std::string_view device_name) {
  const std::string wanted = comparable(device_name);
  const auto* const found = std::find_if(kSpecs.begin(), kSpecs.end(), [&](const GpuSpecs& specs) {
    return comparable(specs.name) == wanted || is_among(wanted, specs.others);
  });
  return found == kSpecs.end() ? nullptr : found;
}

double stated_gflops(const GpuSpecs& specs, DType dtype, GemmChoice gemm) {
  if (dtype == DType::bf16) return 1e3 * specs.bf16_tflops;
  return 1e3 * (gemm == GemmChoice::tf32 ? specs.tf32_tflops : specs.fp32_tflops);
}

std::span<const GpuSpecs> all_gpu_specs() {
  return kSpecs;
}

}  // namespace red

#include "device/gpu_specs.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace red {
namespace {

TEST(GpuSpecs, KnowsWhatDevicesCallThemselves) {
  for (const char* name :
       {"NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe",
        "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H200", "NVIDIA GH200 480GB",
        "NVIDIA B200", "NVIDIA GB200", "NVIDIA L4", "NVIDIA L40", "NVIDIA L40S"}) {
    const GpuSpecs* found = find_gpu_specs(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->name, name);
  }
}

TEST(GpuSpecs, TakesShortNames) {
  using Pair = std::pair<const char*, const char*>;
  for (const auto& [given, name] :
       {Pair("h100", "NVIDIA H100 80GB HBM3"), Pair("H100-SXM", "NVIDIA H100 80GB HBM3"),
        Pair("h100-pcie", "NVIDIA H100 PCIe"), Pair("h100_nvl", "NVIDIA H100 NVL"),
        Pair("a100", "NVIDIA A100-SXM4-80GB"), Pair("a100-40gb", "NVIDIA A100-SXM4-40GB"),
        Pair("A100-PCIE-40GB", "NVIDIA A100-PCIE-40GB"), Pair("gh200", "NVIDIA GH200 480GB"),
        Pair("b200", "NVIDIA B200"), Pair("l40s", "NVIDIA L40S")}) {
    const GpuSpecs* found = find_gpu_specs(given);
    ASSERT_NE(found, nullptr) << given;
    EXPECT_EQ(found->name, name);
  }
}

TEST(GpuSpecs, ANeighbourOrAPartIsNotTheGpu) {
  for (const char* name : {"", " ", "NVIDIA", "GPU", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H10",
                           "NVIDIA A100-SXM-64GB", "NVIDIA GeForce RTX 3090", "CPU", "h100 h100sxm"})
    EXPECT_EQ(find_gpu_specs(name), nullptr) << name;
}

// By hand from the SXM data sheets: 1,979 and 989 TFLOP/s with sparsity, 3.35 TB/s, 80 GB.
TEST(GpuSpecs, GivesDenseRates) {
  const GpuSpecs* h100 = find_gpu_specs("h100");
  ASSERT_NE(h100, nullptr);
  EXPECT_DOUBLE_EQ(h100->bf16_tflops, 1979.0 / 2);
  EXPECT_DOUBLE_EQ(h100->tf32_tflops, 989.0 / 2);
  EXPECT_DOUBLE_EQ(h100->memory_gb_per_s, 3350);
  EXPECT_DOUBLE_EQ(h100->memory_gib, 80);
}

TEST(GpuSpecs, ThePeakIsThatOfTheProductsInUse) {
  const GpuSpecs* a100 = find_gpu_specs("a100");
  ASSERT_NE(a100, nullptr);
  EXPECT_DOUBLE_EQ(stated_gflops(*a100, DType::bf16, GemmChoice::automatic), 312e3);
  EXPECT_DOUBLE_EQ(stated_gflops(*a100, DType::fp32, GemmChoice::tf32), 156e3);
  EXPECT_DOUBLE_EQ(stated_gflops(*a100, DType::fp32, GemmChoice::automatic), 19.5e3);
}

// Sparse rates are twice these, so a row that took one would stand out here.
TEST(GpuSpecs, RowsAreOfOneKind) {
  for (const GpuSpecs& specs : all_gpu_specs()) {
    SCOPED_TRACE(std::string(specs.name));
    EXPECT_EQ(find_gpu_specs(specs.name), &specs);  // no other row takes its name
    EXPECT_NEAR(specs.bf16_tflops / specs.tf32_tflops, 2.0, 0.06);
    EXPECT_GT(specs.tf32_tflops, 0.9 * specs.fp32_tflops);
    EXPECT_GE(specs.memory_gb_per_s, 300);
    EXPECT_LE(specs.memory_gb_per_s, 8000);
    EXPECT_GE(specs.memory_gib, 24);
    EXPECT_LE(specs.memory_gib, 192);
  }
}

}  // namespace
}  // namespace red

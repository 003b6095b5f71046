// A program of its own, because the variable is read once.
#include "device/max_cpu.hpp"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdlib>

#include "device/gemm_libraries.hpp"

namespace red {
namespace {

#if HWY_ARCH_X86
TEST(MaxCpu, HoldsBackWhatGoesBeyondAvx2) {
  setenv("RED_MAX_CPU", "avx2", 1);
  unsetenv("OPENBLAS_CORETYPE");
  setenv("DNNL_MAX_CPU_ISA", "ALL", 1);
  ASSERT_EQ(detail::max_cpu(), detail::MaxCpu::avx2);
  EXPECT_EQ(hwy::SupportedTargets() & (HWY_AVX3 | HWY_AVX3_DL), 0);
  EXPECT_NE(hwy::SupportedTargets(), 0);
  EXPECT_FALSE(detail::load_amx().has_value());
  EXPECT_FALSE(detail::load_pairs().has_value());
  const detail::GemmCandidate onednn = detail::load_onednn();
  EXPECT_FALSE(onednn.gemm && onednn.gemm->has_bf16_arithmetic());
  EXPECT_STREQ(std::getenv("OPENBLAS_CORETYPE"), "Haswell");
  EXPECT_STREQ(std::getenv("DNNL_MAX_CPU_ISA"), "ALL");  // what somebody set stays
  EXPECT_EQ(detail::max_cpu_text(), ", at most avx2 (RED_MAX_CPU)");
}
#endif

}  // namespace
}  // namespace red

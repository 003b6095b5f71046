// What a failure of CUDA says on a machine whose GPU is gone, by NVML's word (fake_nvml.cpp).
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/error.hpp"
#include "device/cuda_check.hpp"
#include "device/cuda_device.hpp"
#include "device/gpu_sensors.hpp"

namespace red::detail {
namespace {

void fail_as(const char* nvml) {
  require_gpu();
  setenv("RED_NVML", FAKE_NVML_LIBRARY, 1);
  setenv("FAKE_NVML", nvml, 1);
  RED_CUDA_CHECK(cudaErrorUnknown);
}

TEST(CudaLost, IsSaidWithWhatCudaSays) {
  for (const char* nvml : {"lost", "gone", "reset"}) {
    try {
      fail_as(nvml);
      FAIL() << "nothing was thrown";
    } catch (const GpuLostError& error) {
      const std::string text = error.what();
      EXPECT_EQ(error.code(), ExitCode::communication);
      for (const char* words :
           {"the GPU at 0000:10:00.0 on ", " is lost, NVML says", "restart the machine", "cudaErrorUnknown"})
        EXPECT_NE(text.find(words), std::string::npos) << words << ": " << text;
    }
  }
}

TEST(CudaLost, OtherFailuresAreWhatTheyWere) {
  EXPECT_THROW(fail_as("sm=1980"), LogicError);
  EXPECT_THROW(fail_as("uninitialized"), LogicError);
}

}  // namespace
}  // namespace red::detail

// The CUDA backend on a machine without a GPU. A program looks for one once, so this one never sees one.
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "device/backend.hpp"
#include "device/cuda_device.hpp"
#include "device/stream.hpp"
#include "runtime/options.hpp"

namespace red {
namespace {

class CudaAbsent : public testing::Test {
 protected:
  CudaAbsent() { cuda_on_cpu::options().num_devices = 0; }
};

void expect_refused(const std::function<void()>& use) {
  try {
    use();
    FAIL() << "there is no GPU";
  } catch (const ConfigError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("no CUDA-capable device is detected"), std::string::npos) << text;
    EXPECT_NE(text.find("or use redllm, the same program for CPUs"), std::string::npos) << text;
  }
}

TEST_F(CudaAbsent, IsSaidWithTheProgramToUse) {
  expect_refused([] { require_backend(1); });
  expect_refused([] { const Buffer buffer(16); });
  expect_refused([] { Stream(1, 0).handle(); });
  expect_refused([] { synchronize_device(); });
  expect_refused([] { detail::gpu_identity(); });
  expect_refused([] { gpu_facts(); });
}

TEST_F(CudaAbsent, DoesNotKeepFromPlanning) {
  Stream stream(2, 0);
  stream.synchronize();
  EXPECT_TRUE(stream.gemm().has_bf16_arithmetic());
  EXPECT_EQ(Buffer(std::size_t{1} << 40, Memory::counted).num_bytes(), std::size_t{1} << 40);
}

}  // namespace
}  // namespace red

// Sensors over what stands for NVML (fake_nvml.cpp), and without any.
#include "device/gpu_sensors.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

namespace red {
namespace {

const std::string kGpu = "0000:19:00.0";

std::optional<GpuState> read_as(const char* state) {
  setenv("FAKE_NVML", state, 1);
  const GpuSensors sensors(kGpu, FAKE_NVML_LIBRARY);
  EXPECT_EQ(sensors.absent(), "");
  return sensors.read();
}

TEST(GpuSensors, ReadsWhatTheGpuSays) {
  const auto state =
      read_as("sm=1980 memory=2619 temperature=61 milliwatts=412500 limit=650000 ecc=0 reasons=0");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->sm_mhz, 1980);
  EXPECT_EQ(state->memory_mhz, 2619);
  EXPECT_EQ(state->temperature_c, 61);
  EXPECT_EQ(state->power_w, 412.5);
  EXPECT_EQ(state->power_limit_w, 650);
  EXPECT_EQ(state->ecc_errors, 0);
  EXPECT_FALSE(state->power_capped);
  EXPECT_TRUE(state->slowed_by.empty());
  EXPECT_EQ(state->lost, "");
}

TEST(GpuSensors, WhatAGpuDoesNotTellIsNotThere) {
  const auto state = read_as("sm=210");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->sm_mhz, 210);
  EXPECT_FALSE(state->temperature_c || state->power_w || state->power_limit_w || state->ecc_errors ||
               state->memory_mhz);
  EXPECT_TRUE(state->slowed_by.empty());
}

TEST(GpuSensors, TellsHeatAndPowerBrakeFromWhatBusyOrIdleGpusHave) {
  using Names = std::vector<std::string>;
  EXPECT_EQ(read_as("reasons=0x1")->slowed_by, Names());    // idle
  EXPECT_EQ(read_as("reasons=0x112")->slowed_by, Names());  // clocks that somebody set, sync boost
  const auto capped = read_as("reasons=0x4");
  EXPECT_TRUE(capped->power_capped);
  EXPECT_EQ(capped->slowed_by, Names());
  EXPECT_EQ(read_as("reasons=0x20")->slowed_by, Names{"heat (slowed by the driver)"});
  EXPECT_EQ(read_as("reasons=0x48")->slowed_by, Names{"heat (slowed by the hardware)"});
  EXPECT_EQ(read_as("reasons=0x8c")->slowed_by, Names{"the power brake of its power supply"});
  EXPECT_EQ(read_as("reasons=0x8")->slowed_by, Names{"the hardware, for heat or power"});
}

TEST(GpuSensors, ALostGpuIsNamed) {
  const auto state = read_as("lost sm=1980");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->lost, "GPU is lost");
  EXPECT_FALSE(state->sm_mhz);
  EXPECT_EQ(read_as("gone sm=1980")->lost, "GPU is lost");
  EXPECT_EQ(read_as("reset sm=1980")->lost, "GPU requires reset");
}

TEST(GpuSensors, TheDriverHasAVersion) {
  setenv("FAKE_NVML", "", 1);
  EXPECT_EQ(GpuSensors(kGpu, FAKE_NVML_LIBRARY).driver(), "580.65.06");
}

void expect_absent(const GpuSensors& sensors, const std::string& words) {
  EXPECT_NE(sensors.absent().find(words), std::string::npos) << sensors.absent();
  EXPECT_FALSE(sensors.read());
  EXPECT_EQ(sensors.driver(), "");
}

TEST(GpuSensors, NothingFailsWithoutThem) {
  expect_absent(GpuSensors(kGpu, "libno-such-nvml.so.1"), "libno-such-nvml.so.1: cannot open");
  expect_absent(GpuSensors(kGpu, "libm.so.6"), "it has no nvmlInit_v2");
  setenv("FAKE_NVML", "uninitialized", 1);
  expect_absent(GpuSensors(kGpu, FAKE_NVML_LIBRARY), "nvmlInit_v2: Driver Not Loaded");
  setenv("FAKE_NVML", "", 1);
  expect_absent(GpuSensors("0000:99:00.0", FAKE_NVML_LIBRARY), "no GPU at 0000:99:00.0: Not Found");
}

TEST(GpuSensors, TheEnvironmentNamesTheLibrary) {
  setenv("FAKE_NVML", "temperature=40", 1);
  setenv("RED_NVML", FAKE_NVML_LIBRARY, 1);
  const auto state = GpuSensors(kGpu).read();
  unsetenv("RED_NVML");
  ASSERT_TRUE(state);
  EXPECT_EQ(state->temperature_c, 40);
}

}  // namespace
}  // namespace red

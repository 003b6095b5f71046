#include "train/gpu_watch.hpp"

#include <fmt/ranges.h>

#include "base/log.hpp"
#include "device/backend.hpp"
#include "parallel/star.hpp"

namespace red::train {

GpuWatch::GpuWatch() {
  const auto gpu = gpu_facts();
  if (!gpu) return;
  sensors_ = std::make_unique<GpuSensors>(gpu->pci_address);
  name_ = fmt::format("{} at {}", gpu->name, gpu->pci_address);
  if (!sensors_->absent().empty())
    log::info("no clocks, temperatures and memory errors of GPUs in the metrics: {}", sensors_->absent());
}

std::optional<GpuState> GpuWatch::look() {
  if (!sensors_) return std::nullopt;
  std::optional<GpuState> state = sensors_->read();
  if (!state) return std::nullopt;
  if (!state->lost.empty()) {
    if (loss_.empty()) {
      loss_ = loss_text(fmt::format("{} on {}", name_, parallel::host_name()), state->lost);
      log::rank_error("{}", loss_);
    }
    return state;
  }
  const bool slowed = !state->slowed_by.empty();
  if (slowed && !slowed_)
    log::rank_warning("{} is slowed by {}: {:.0f} MHz at {:.0f} C; cooling or power supply of the machine",
                      name_, fmt::join(state->slowed_by, " and "), state->sm_mhz.value_or(0),
                      state->temperature_c.value_or(0));
  if (!slowed && slowed_) log::rank_warning("{} is no longer slowed", name_);
  slowed_ = slowed;
  const int64_t errors = state->ecc_errors.value_or(0);
  if (errors > ecc_errors_)
    log::rank_warning("{} has {} errors of memory that ECC could not correct: replace it or reset it", name_,
                      errors);
  ecc_errors_ = errors;
  return state;
}

}  // namespace red::train

// Settles train.precision = auto before an engine is made.
#pragma once

#include <filesystem>
#include <optional>

#include "config/run_config.hpp"
#include "device/stream.hpp"
#include "model/precision.hpp"
#include "parallel/communicator.hpp"

namespace red::train {

/// That of the checkpoint from which a run goes on, fp32 where it is from before there was a choice; nothing:
/// the run begins anew.
std::optional<model::Precision> precision_of(const std::optional<std::filesystem::path>& checkpoint);

/// `wanted` unless it is automatic; then that of the checkpoint; in a new run bf16 if every rank has bf16
/// arithmetic, and fp32 otherwise. The same on every rank. Collective.
model::Precision settle_precision(model::Precision wanted, std::optional<model::Precision> saved,
                                  parallel::Communicator& world, const Stream& stream);

}  // namespace red::train

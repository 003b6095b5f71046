// A checkpoint as one HDF5 file: every tensor a plain dataset, whole, under its logical name, for whoever
// reads HDF5 and does not want to know of shards.
#pragma once

#include <filesystem>

#include "convert/model_checkpoint.hpp"

namespace red::convert {

struct ConsolidateOptions {
  DType dtype = DType::fp32;     ///< of parameters, or bf16; optimizer state stays as it is
  bool optimizer_state = false;  ///< too, and what else a checkpoint remembers of it
};

/// Writes `out`, which must not exist; whole or not at all. Holds a block of 64 MiB at a time. Throws
/// ConfigError, DataError, IoError.
void consolidate(const ModelCheckpoint& model, const std::filesystem::path& out,
                 const ConsolidateOptions& options);

}  // namespace red::convert

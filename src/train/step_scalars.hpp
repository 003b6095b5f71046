// The numbers of a step that live on the device (ops/update_scalars.hpp), fp64.
#pragma once

#include "device/buffer.hpp"
#include "model/parameter.hpp"
#include "ops/update_scalars.hpp"

namespace red::train {

struct StepScalars {
  StepScalars(Arena& arena, const model::ModelConfig& config)
      : sums(arena.allocate<double>(
            ops::kStepSums + static_cast<int64_t>(model::parameter_specs(config).size()), 1)),
        scalars(arena.allocate<double>(ops::kStepScalars, 1)),
        updates(arena.allocate<double>(1, 1)) {}

  static std::size_t count_bytes(const model::ModelConfig& config) {
    Arena counted = Arena::counting();
    StepScalars(counted, config);
    return counted.peak();
  }

  Tensor sum(ops::StepSum which) const { return sums.row_range(which, 1); }
  Tensor squares_of(const model::ParameterSpec& spec) const {
    return sums.row_range(ops::kStepSums + spec.index, 1);
  }

  Tensor sums;     ///< (kStepSums + parameters of the model, 1)
  Tensor scalars;  ///< (kStepScalars, 1)
  Tensor updates;  ///< (1, 1)
};

}  // namespace red::train

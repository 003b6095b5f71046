// Pipeline shapes for tests of schedules.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "parallel/schedule.hpp"

namespace red::parallel {

/// Every schedule of a training step with one chunk on each stage.
inline constexpr PipelineSchedule kSchedules[] = {PipelineSchedule::one_forward_one_backward,
                                                  PipelineSchedule::zero_bubble_h1};

/// Every shape up to these counts.
inline std::vector<PipelineShape> all_shapes(int encoder_stages, int decoder_stages, int micro_batches) {
  std::vector<PipelineShape> shapes;
  for (int encoder = 0; encoder <= encoder_stages; ++encoder) {
    for (int decoder = 1; decoder <= decoder_stages; ++decoder) {
      for (int m = 1; m <= micro_batches; ++m) shapes.push_back({encoder, decoder, m});
    }
  }
  return shapes;
}

/// Shapes of `virtual_stages` chunks that have something to interleave, every `step`th number of
/// micro-batches from 8 on.
inline std::vector<PipelineShape> interleaved_shapes(int encoder_stages, int decoder_stages,
                                                     int micro_batches, int virtual_stages, int step = 1) {
  std::vector<PipelineShape> shapes;
  for (PipelineShape shape : all_shapes(encoder_stages, decoder_stages, micro_batches)) {
    if (shape.num_stages() == 1) continue;
    if (shape.num_micro_batches > 8 && shape.num_micro_batches % step != 0) continue;
    shape.virtual_stages = virtual_stages;
    shapes.push_back(shape);
  }
  return shapes;
}

inline std::string name_of(const PipelineShape& shape) {
  return fmt::format("{} + {} stages of {} chunks, {} micro-batches", shape.encoder_stages,
                     shape.decoder_stages, shape.virtual_stages, shape.num_micro_batches);
}

}  // namespace red::parallel

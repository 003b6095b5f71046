// The ops of a step beside layers and loss: what goes from one piece of the pipeline to the next, buckets,
// the norm of gradients, the optimizer.
#pragma once

#include "launch/op_cases.hpp"

namespace red::launch {

/// Pieces of the pipeline that a stack's layers are divided over: stages, or chunks of them; at least 1.
int64_t encoder_pieces(const config::RunConfig& config);
int64_t decoder_pieces(const config::RunConfig& config);

/// The second part of op_cases(), of all ranks together.
std::vector<OpCase> step_op_cases(const config::RunConfig& config, const data::SampleLengths& lengths);

}  // namespace red::launch

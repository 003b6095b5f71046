// The ops of a training step at a model's shapes and how often a step runs each: what `redllm bench ops`
// times one by one, and `redllm plan --roofline` adds up.
#pragma once

#include <string>
#include <vector>

#include "config/run_config.hpp"
#include "data/sample.hpp"
#include "launch/op_builders.hpp"

namespace red::launch {

struct OpCase {
  std::string name, shape;
  double per_micro_batch = 0.0;  ///< runs for each micro-batch
  double per_step = 0.0;         ///< and once in a step, for parameters, of which one matrix is the case
  OpBuild build;
  bool attention = false;  ///< whose implementation the stream chooses
};

/// All ops of a step, in the precision and with the recomputation of config.train: of one rank that has the
/// whole model, and what data ranks and stages of config.parallel do beside that, all ranks together. Tensor
/// ranks' copies of norms, and what a step copies on its way (keys of samples, sums of the loss), are not in
/// it.
std::vector<OpCase> op_cases(const config::RunConfig& config, const data::SampleLengths& lengths);

/// Scratch memory that the largest of them takes.
std::size_t op_scratch_bytes(const config::RunConfig& config, const data::SampleLengths& lengths,
                             int num_threads);

}  // namespace red::launch

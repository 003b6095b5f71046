// From the endless row of samples to this rank's micro-batches of a step. Step t of a run takes the global
// samples [first, first + global_batch), those that are left out not counted; data rank r of n takes the r-th
// n-th of them, in order, whatever the micro-batch. All stages of a pipeline load the same samples, so nobody
// has to be told shapes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/sample.hpp"
#include "data/sample_ranges.hpp"

namespace red::train {

class BatchLoader {
 public:
  /// global_batch must divide by micro_batch x num_data_ranks. The provider must outlive the loader.
  BatchLoader(const data::SampleProvider& provider, data::DecoderPositions positions, int64_t global_batch,
              int64_t micro_batch, int num_data_ranks, int data_rank);

  /// This rank's micro-batches of the global batch that begins at first_sample and has none of `left_out`;
  /// valid until the next call.
  std::span<const data::MicroBatch> load(uint64_t first_sample, const data::SampleRanges& left_out = {});
  /// Hash of this rank's samples of the last load(); the step's digest is the sum over data ranks.
  uint64_t digest() const { return digest_; }
  int num_micro_batches() const { return static_cast<int>(batches_.size()); }

 private:
  const data::SampleProvider& provider_;
  data::DecoderPositions positions_;
  uint64_t offset_;  ///< of this rank's first sample within the global batch
  std::vector<data::Sample> samples_;
  std::vector<data::MicroBatch> batches_;
  uint64_t digest_ = 0;
};

}  // namespace red::train

#include "train/batch_loader.hpp"

#include "base/check.hpp"
#include "data/sample_digest.hpp"

namespace red::train {

BatchLoader::BatchLoader(const data::SampleProvider& provider, data::DecoderPositions positions,
                         int64_t global_batch, int64_t micro_batch, int num_data_ranks, int data_rank)
    : provider_(provider), positions_(positions), samples_(micro_batch) {
  RED_CHECK(global_batch % (micro_batch * num_data_ranks) == 0,
            "global batch {}, micro-batch {}, {} data ranks", global_batch, micro_batch, num_data_ranks);
  const int64_t own = global_batch / num_data_ranks;
  offset_ = static_cast<uint64_t>(own * data_rank);
  batches_.resize(own / micro_batch);
}

std::span<const data::MicroBatch> BatchLoader::load(uint64_t first_sample,
                                                    const data::SampleRanges& left_out) {
  uint64_t index = left_out.at(first_sample, offset_);
  digest_ = 0;
  for (data::MicroBatch& batch : batches_) {
    for (data::Sample& sample : samples_) {
      provider_.get(index, sample);
      index = left_out.at(index + 1, 0);
      digest_ += data::sample_hash(sample);
    }
    data::pack(samples_, positions_, batch);
  }
  return batches_;
}

}  // namespace red::train

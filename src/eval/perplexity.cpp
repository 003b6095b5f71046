#include "eval/perplexity.hpp"

#include <algorithm>
#include <cmath>

namespace red::eval {
namespace {

/// Adds the targets of one micro-batch. The last `num_late` of each sample count as its second half.
void add_targets(std::span<const float> log_probability, const data::MicroBatch& batch, int64_t num_late,
                 SourcePerplexity& result) {
  for (int64_t s = 0; s < batch.num_sequences(); ++s) {
    const int64_t begin = batch.decoder.offsets[s], end = batch.decoder.offsets[s + 1];
    for (int64_t i = begin; i < end; ++i) {
      if (batch.loss_mask[i] == 0) continue;
      const double nats = -static_cast<double>(log_probability[i]);
      result.all.sum += nats;
      ++result.all.count;
      if (i < end - num_late) continue;
      result.second_half.sum += nats;
      ++result.second_half.count;
    }
  }
}

}  // namespace

double TokenLoss::perplexity() const {
  return std::exp(mean());
}

SourcePerplexity perplexity(train::Engine& engine, const data::FixedProvider& provider,
                            const PerplexityOptions& options) {
  const parallel::Mesh& mesh = engine.mesh();
  const int64_t available = provider.num_samples();
  const int64_t total = options.max_windows > 0 ? std::min(options.max_windows, available) : available;
  const int64_t begin = total * mesh.at().data / mesh.layout().data;
  const int64_t end = total * (mesh.at().data + 1) / mesh.layout().data;
  SourcePerplexity result{provider.source_names().front(), total, {}, {}};
  engine.complete_weights();  // here, as some data ranks may have no window
  std::vector<data::Sample> samples;
  data::MicroBatch batch;
  for (int64_t first = begin; first < end; first += options.micro_batch) {
    samples.resize(std::min(options.micro_batch, end - first));
    for (std::size_t i = 0; i < samples.size(); ++i) provider.get(first + i, samples[i]);
    data::pack(samples, options.positions, batch);
    const std::span<const float> log_probability = engine.score(batch);
    if (engine.speaks_for_samples()) add_targets(log_probability, batch, options.num_late_targets, result);
  }
  double sums[4] = {result.second_half.sum, static_cast<double>(result.second_half.count), result.all.sum,
                    static_cast<double>(result.all.count)};
  parallel::Request request = mesh.world().all_reduce(make_tensor(sums, 4, 1), parallel::ReduceOp::sum);
  mesh.world().wait(request, "all-reduce of perplexity");
  result.second_half = {sums[0], static_cast<int64_t>(sums[1])};
  result.all = {sums[2], static_cast<int64_t>(sums[3])};
  return result;
}

}  // namespace red::eval

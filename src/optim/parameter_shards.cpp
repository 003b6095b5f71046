#include "optim/parameter_shards.hpp"

#include <algorithm>
#include <numeric>

#include "ops/elementwise.hpp"

namespace red::optim {

RowRange shard_rows(int64_t rows, int num_ranks, int rank) {
  const int64_t begin = rows * rank / num_ranks, end = rows * (rank + 1) / num_ranks;
  return {begin, end - begin};
}

ParameterShards::ParameterShards(Stream& stream, const model::ParameterStore& store, bool owns_embedding,
                                 const parallel::Mesh& mesh, std::size_t bucket_bytes)
    : stream_(stream), data_(mesh.data()) {
  for (const model::StoredParameter& p : store.parameters()) {
    const RowRange rows = shard_rows(p.region.num_rows, data_.size(), data_.rank());
    const bool owned = owns_embedding || p.spec.name != "embedding.weight";
    const bool first_copy = p.spec.cut != model::TensorCut::none || mesh.at().tensor == 0;
    shards_.push_back({&p, rows, p.weight.value.row_range(rows.begin, rows.count),
                       p.weight.gradient.row_range(rows.begin, rows.count), owned, owned && first_copy});
  }
  if (data_.size() > 1) make_buckets(bucket_bytes);
}

const ParameterShard* ParameterShards::embedding() const {
  const auto it = std::find_if(shards_.begin(), shards_.end(), [](const ParameterShard& shard) {
    return shard.parameter->spec.name == "embedding.weight";
  });
  return it == shards_.end() ? nullptr : &*it;
}

int64_t ParameterShards::chunk_elements(const Bucket& bucket, int rank) const {
  int64_t elements = 0;
  for (const std::size_t member : bucket.members) {
    const model::ParameterRegion& region = shards_[member].parameter->region;
    elements += shard_rows(region.num_rows, data_.size(), rank).count * region.num_cols;
  }
  return elements;
}

/// Decoder layers from the last, encoder layers from the last, then what is final at the end alone: the
/// embedding, and gains, whose gradients may still be summed over the tensor axis.
std::vector<std::size_t> ParameterShards::backward_order() const {
  std::vector<std::size_t> order(shards_.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto key = [&](std::size_t i) -> std::pair<int, int64_t> {
    const model::ParameterSpec& spec = shards_[i].parameter->spec;
    const auto layer = model::layer_of(spec.name);
    if (spec.is_gain() || !layer) return {spec.is_gain() ? 3 : 2, 0};
    return {layer->stack == model::Stack::decoder ? 0 : 1, -layer->layer};
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  return order;
}

void ParameterShards::make_buckets(std::size_t bucket_bytes) {
  std::size_t filled = bucket_bytes;  // the first parameter opens a bucket
  bool at_end = false;
  for (const std::size_t i : backward_order()) {
    const model::StoredParameter& parameter = *shards_[i].parameter;
    const auto layer = parameter.spec.is_gain() ? std::nullopt : model::layer_of(parameter.spec.name);
    const std::size_t num_bytes = static_cast<std::size_t>(parameter.region.size()) * sizeof(float);
    if (filled + num_bytes > bucket_bytes || at_end != !layer.has_value()) {
      buckets_.emplace_back();
      filled = 0;
    }
    at_end = !layer.has_value();
    buckets_.back().members.push_back(i);
    buckets_.back().last_layer = layer;
    filled += num_bytes;
  }
  int64_t largest = 0;
  for (Bucket& bucket : buckets_) {
    for (int rank = 0; rank < data_.size(); ++rank)
      bucket.chunk = std::max(bucket.chunk, chunk_elements(bucket, rank));
    largest = std::max(largest, bucket.chunk);
  }
  const auto allocate = [&](Arena& arena) {
    for (Bucket& bucket : buckets_) bucket.received = arena.allocate(1, bucket.chunk);
    for (Staging& staging : staging_) staging.memory = arena.allocate(1, largest * data_.size());
  };
  Arena counted = Arena::counting();
  allocate(counted);
  memory_ = Arena("gradient buckets", counted.peak());
  allocate(memory_);
  for (const Bucket& bucket : buckets_) {
    for_each_part(
        bucket, data_.rank(), bucket.received,
        [&](std::size_t member, const RowRange&, const Tensor& part) { shards_[member].gradient = part; });
  }
}

/// visit(shard index, rows, part) for each parameter's rows of `rank`, part (rows, cols) within chunk (1,
/// chunk).
template <class Visit>
void ParameterShards::for_each_part(const Bucket& bucket, int rank, const Tensor& chunk, Visit visit) const {
  int64_t offset = 0;
  for (const std::size_t member : bucket.members) {
    const model::ParameterRegion& region = shards_[member].parameter->region;
    const RowRange rows = shard_rows(region.num_rows, data_.size(), rank);
    visit(member, rows, make_tensor(chunk.as<float>() + offset, rows.count, region.num_cols));
    offset += rows.count * region.num_cols;
  }
}

/// (ranks, chunk)
Tensor ParameterShards::staged(const Staging& staging, const Bucket& bucket) const {
  return make_tensor(staging.memory.as<float>(), data_.size(), bucket.chunk);
}

void ParameterShards::begin_reduction(std::size_t index) {
  Staging& staging = staging_[index % 2];
  const Bucket& bucket = buckets_[index];
  if (staging.request) data_.wait(staging.request, "reduce-scatter of gradients");
  const Tensor send = staged(staging, bucket);
  for (int rank = 0; rank < data_.size(); ++rank) {
    for_each_part(bucket, rank, send.row_range(rank, 1),
                  [&](std::size_t member, const RowRange& rows, const Tensor& part) {
                    ops::copy(stream_, part,
                              shards_[member].parameter->weight.gradient.row_range(rows.begin, rows.count));
                  });
  }
  staging.request = data_.reduce_scatter(bucket.received, send);
}

void ParameterShards::layer_done(const model::LayerOfParameter& layer) {
  while (next_bucket_ < buckets_.size()) {
    const auto& last = buckets_[next_bucket_].last_layer;
    const bool whole = last && (last->stack != layer.stack ? last->stack == model::Stack::decoder
                                                           : last->layer >= layer.layer);
    if (!whole) return;
    begin_reduction(next_bucket_++);
  }
}

/// A bucket has arrived when its staging memory went to a later one, or when its request is done.
void ParameterShards::measure_hidden_share() {
  int64_t arrived = 0, all = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    all += buckets_[i].chunk;
    if (i >= next_bucket_) continue;
    Staging& staging = staging_[i % 2];
    if (i + 2 < next_bucket_ || !staging.request || data_.test(staging.request)) arrived += buckets_[i].chunk;
  }
  hidden_share_ = all == 0 ? 1.0 : static_cast<double>(arrived) / static_cast<double>(all);
}

void ParameterShards::reduce() {
  measure_hidden_share();
  while (next_bucket_ < buckets_.size()) begin_reduction(next_bucket_++);
  next_bucket_ = 0;
  for (Staging& staging : staging_) {
    if (staging.request) data_.wait(staging.request, "reduce-scatter of gradients");
  }
}

void ParameterShards::finish_gather(Staging& staging) {
  if (!staging.request) return;
  data_.wait(staging.request, "all-gather of parameters");
  const Tensor gathered = staged(staging, *staging.bucket);
  for (int rank = 0; rank < data_.size(); ++rank) {
    if (rank == data_.rank()) continue;
    for_each_part(*staging.bucket, rank, gathered.row_range(rank, 1),
                  [&](std::size_t member, const RowRange& rows, const Tensor& part) {
                    const Tensor& whole = shards_[member].parameter->weight.value;
                    ops::copy(stream_, whole.row_range(rows.begin, rows.count), part);
                  });
  }
}

void ParameterShards::gather() {
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    Staging& staging = staging_[i % 2];
    finish_gather(staging);
    staging.bucket = &buckets_[i];
    const Tensor all = staged(staging, *staging.bucket);
    const Tensor own = all.row_range(data_.rank(), 1);
    for_each_part(*staging.bucket, data_.rank(), own,
                  [&](std::size_t member, const RowRange&, const Tensor& part) {
                    ops::copy(stream_, part, shards_[member].weight);
                  });
    staging.request = data_.all_gather(all, own);
  }
  for (Staging& staging : staging_) finish_gather(staging);
}

}  // namespace red::optim

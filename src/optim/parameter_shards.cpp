#include "optim/parameter_shards.hpp"

#include <algorithm>
#include <exception>
#include <numeric>
#include <string_view>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "ops/elementwise.hpp"

namespace red::optim {
namespace {

constexpr std::string_view kEmbedding = "embedding.weight";

// Under way at a time, where there is room. Over MPI they share the wire, so that more would hold up the
// first, which is needed first.
constexpr std::size_t kMostGathers = 4;

/// With which layer's backward pass a gradient is final; nothing: only at the end of all, as the embedding's
/// and those of whole parameters (gains), which may still be summed over the tensor axis (WholeGradients).
std::optional<model::LayerOfParameter> final_with(const ParameterShard& shard) {
  const model::ParameterSpec& spec = shard.parameter->spec;
  return spec.cut == model::TensorCut::none ? std::nullopt : model::layer_of(spec.name);
}

/// Decoder layers from the last, encoder layers from the last, then what is final at the end.
std::vector<std::size_t> backward_order(const std::vector<ParameterShard>& shards) {
  std::vector<std::size_t> order(shards.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto key = [&](std::size_t i) -> std::pair<int, int64_t> {
    const auto layer = final_with(shards[i]);
    if (!layer) return {2, 0};
    return {layer->stack == model::Stack::decoder ? 0 : 1, -layer->layer};
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  return order;
}

/// Whether a forward pass that comes to `layer` has used by then what belongs to `first`, where nothing is
/// the begin.
bool used_by(const std::optional<model::LayerOfParameter>& first,
             const std::optional<model::LayerOfParameter>& layer) {
  if (!first) return true;
  if (!layer) return false;
  return first->stack == layer->stack ? first->layer <= layer->layer : first->stack == model::Stack::encoder;
}

}  // namespace

RowRange shard_rows(int64_t rows, int num_ranks, int rank) {
  const int64_t begin = rows * rank / num_ranks, end = rows * (rank + 1) / num_ranks;
  return {begin, end - begin};
}

std::vector<ParameterShard> shards_of(const model::ParameterStore& store, bool owns_embedding,
                                      const ShardPlace& at) {
  std::vector<ParameterShard> shards;
  shards.reserve(store.parameters().size());
  for (const model::StoredParameter& p : store.parameters()) {
    const RowRange rows = shard_rows(p.region.num_rows, at.num_data, at.data);
    const bool owned = owns_embedding || p.spec.name != kEmbedding;
    const bool first_copy = p.spec.cut != model::TensorCut::none || at.tensor == 0;
    ParameterShard& shard = shards.emplace_back(ParameterShard{
        &p, rows, {}, p.weight.gradient.row_range(rows.begin, rows.count), owned, owned && first_copy});
    if (!shard.has_master()) shard.weight = shard.value();
  }
  return shards;
}

const ParameterShard* embedding_of(const std::vector<ParameterShard>& shards) {
  const auto it = std::find_if(shards.begin(), shards.end(), [](const ParameterShard& shard) {
    return shard.parameter->spec.name == kEmbedding;
  });
  return it == shards.end() ? nullptr : &*it;
}

ParameterShards::ParameterShards(Stream& stream, const model::ParameterStore& store, bool owns_embedding,
                                 const parallel::Mesh& mesh, const BucketOptions& options)
    : stream_(stream),
      data_(mesh.data()),
      gradient_dtype_(options.gradient_dtype),
      overlap_(options.overlap),
      shards_(shards_of(store, owns_embedding, {data_.size(), data_.rank(), mesh.at().tensor})),
      masters_("master weights", count_master_bytes(shards_)),
      buckets_(make_buckets(shards_, data_.size(), options.num_bytes)),
      memory_("gradient buckets", count_bytes(shards_, data_.size(), options)) {
  allocate_masters(masters_, shards_);
  allocate(memory_, buckets_, staging_, data_.size(), gradient_dtype_);
  for (const Bucket& bucket : buckets_) {
    for_each_part(
        bucket, data_.rank(), bucket.received,
        [&](std::size_t member, const RowRange&, const Tensor& part) { shards_[member].gradient = part; });
  }
  place_gathers();
  num_begun_ = num_gathered_ = buckets_.size();
}

/// Other ranks may still write to this memory, and read from it. Behind an exception they may be lost.
ParameterShards::~ParameterShards() {
  if (std::uncaught_exceptions() != 0) return;
  try {
    finish_gather();
  } catch (const std::exception& error) {
    log::rank_warning("{}", error.what());
  }
}

void ParameterShards::allocate_masters(Arena& arena, std::vector<ParameterShard>& shards) {
  for (ParameterShard& shard : shards) {
    if (shard.has_master()) shard.weight = arena.allocate(shard.rows.count, shard.parameter->region.num_cols);
  }
}

std::size_t ParameterShards::count_master_bytes(std::vector<ParameterShard> shards) {
  Arena counted = Arena::counting();
  allocate_masters(counted, shards);
  return counted.peak();
}

void ParameterShards::initialize_masters(uint64_t seed) {
  for (const ParameterShard& shard : shards_) {
    if (shard.has_master())
      model::initialize_rows(stream_, shard.weight, *shard.parameter, shard.rows.begin, seed);
  }
}

/// One data rank alone exchanges nothing and has no buckets.
std::vector<ParameterShards::Bucket> ParameterShards::make_buckets(const std::vector<ParameterShard>& shards,
                                                                   int num_data, std::size_t bucket_bytes) {
  std::vector<Bucket> buckets;
  if (num_data == 1) return buckets;
  std::size_t filled = 0;
  bool at_end = false;
  for (const std::size_t i : backward_order(shards)) {
    const model::StoredParameter& parameter = *shards[i].parameter;
    const auto layer = final_with(shards[i]);
    const std::size_t num_bytes = static_cast<std::size_t>(parameter.region.size()) * sizeof(float);
    const DType dtype = parameter.weight.value.dtype;
    if (buckets.empty() || filled + num_bytes > bucket_bytes || at_end != !layer.has_value() ||
        buckets.back().dtype != dtype) {
      buckets.emplace_back();
      buckets.back().dtype = dtype;
      filled = 0;
    }
    at_end = !layer.has_value();
    buckets.back().members.push_back(i);
    buckets.back().last_layer = layer;
    filled += num_bytes;
  }
  for (Bucket& bucket : buckets) {
    for (int rank = 0; rank < num_data; ++rank) {
      int64_t elements = 0;
      for (const std::size_t member : bucket.members) {
        const model::ParameterRegion& region = shards[member].parameter->region;
        elements += shard_rows(region.num_rows, num_data, rank).count * region.num_cols;
      }
      bucket.chunk = std::max(bucket.chunk, elements);
    }
  }
  return buckets;
}

void ParameterShards::allocate(Arena& arena, std::vector<Bucket>& buckets, Staging (&staging)[2],
                               int num_data, DType gradient_dtype) {
  std::size_t largest = 0;
  for (Bucket& bucket : buckets) {
    bucket.received = arena.allocate(1, bucket.chunk);
    const std::size_t element = std::max(size_of(gradient_dtype), size_of(bucket.dtype));
    largest = std::max(largest, static_cast<std::size_t>(bucket.chunk * num_data) * element);
  }
  const auto floats = static_cast<int64_t>(Arena::rounded(largest) / sizeof(float));
  for (Staging& s : staging) s.memory = arena.allocate(1, floats);
}

std::size_t ParameterShards::count_bytes(const std::vector<ParameterShard>& shards, int num_data,
                                         const BucketOptions& options) {
  Arena counted = Arena::counting();
  std::vector<Bucket> buckets = make_buckets(shards, num_data, options.num_bytes);
  Staging staging[2];
  allocate(counted, buckets, staging, num_data, options.gradient_dtype);
  return counted.peak();
}

/// visit(shard index, rows, part) for each parameter's rows of `rank`, part (rows, cols) within chunk (1,
/// chunk).
template <class Visit>
void ParameterShards::for_each_part(const Bucket& bucket, int rank, const Tensor& chunk, Visit visit) const {
  int64_t offset = 0;
  for (const std::size_t member : bucket.members) {
    const model::ParameterRegion& region = shards_[member].parameter->region;
    const RowRange rows = shard_rows(region.num_rows, data_.size(), rank);
    const int64_t size = rows.count * region.num_cols;
    Tensor part = chunk.col_range(offset, size);
    part.rows = rows.count;
    part.cols = part.row_stride = region.num_cols;
    visit(member, rows, part);
    offset += size;
  }
}

/// (ranks, chunk)
Tensor ParameterShards::staged(const Staging& staging, const Bucket& bucket, DType dtype) const {
  return {staging.memory.data, data_.size(), bucket.chunk, bucket.chunk, dtype};
}

void ParameterShards::begin_reduction(std::size_t index) {
  RED_CHECK(!gathering(), "gradients are reduced before all weights have arrived");
  Staging& staging = staging_[index % 2];
  const Bucket& bucket = buckets_[index];
  finish_reduction(staging);
  staging.bucket = &bucket;
  const Tensor send = staged(staging, bucket, gradient_dtype_);
  for (int rank = 0; rank < data_.size(); ++rank) {
    for_each_part(bucket, rank, send.row_range(rank, 1),
                  [&](std::size_t member, const RowRange& rows, const Tensor& part) {
                    ops::copy(stream_, part,
                              shards_[member].parameter->weight.gradient.row_range(rows.begin, rows.count));
                  });
  }
  const bool as_sent = gradient_dtype_ == DType::fp32;
  staging.request = data_.reduce_scatter(as_sent ? bucket.received : send.row_range(data_.rank(), 1), send);
  if (!overlap_) finish_reduction(staging);
}

void ParameterShards::finish_reduction(Staging& staging) {
  if (staging.bucket == nullptr) return;
  data_.wait(staging.request, "reduce-scatter of gradients");
  const Bucket& bucket = *std::exchange(staging.bucket, nullptr);
  if (gradient_dtype_ == DType::fp32) return;
  ops::copy(stream_, bucket.received, staged(staging, bucket, gradient_dtype_).row_range(data_.rank(), 1));
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

/// A bucket has arrived when its staging memory went to a later one, or was read, or when its request is
/// done.
void ParameterShards::measure_hidden_share() {
  int64_t arrived = 0, all = 0;
  for (std::size_t i = 0; i < buckets_.size(); ++i) {
    all += buckets_[i].chunk;
    if (i >= next_bucket_) continue;
    Staging& staging = staging_[i % 2];
    if (i + 2 < next_bucket_ || staging.bucket == nullptr || data_.test(staging.request))
      arrived += buckets_[i].chunk;
  }
  hidden_share_ = all == 0 ? 1.0 : static_cast<double>(arrived) / static_cast<double>(all);
}

void ParameterShards::reduce() {
  measure_hidden_share();
  while (next_bucket_ < buckets_.size()) begin_reduction(next_bucket_++);
  next_bucket_ = 0;
  for (Staging& staging : staging_) finish_reduction(staging);
}

/// Both staging memories are a ring, in which each bucket begins where the one before it ends.
void ParameterShards::place_gathers() {
  const std::size_t room = 2 * sizeof(float) * static_cast<std::size_t>(staging_[0].memory.size());
  RED_CHECK(staging_[1].memory.data == staging_[0].memory.data + room / 2, "two messages lie apart");
  std::size_t end = 0;
  for (std::size_t number = 0; number < buckets_.size(); ++number) {
    Bucket& bucket = in_forward_order(number);
    bucket.gather_begin = end + gather_bytes(bucket) > room ? 0 : end;
    end = bucket.gather_begin + gather_bytes(bucket);
    for (std::size_t earlier = 0; earlier < number; ++earlier) {
      const Bucket& other = in_forward_order(earlier);
      if (other.gather_begin < end && bucket.gather_begin < other.gather_begin + gather_bytes(other))
        bucket.gather_after = earlier + 1;
    }
  }
}

std::size_t ParameterShards::gather_bytes(const Bucket& bucket) const {
  return Arena::rounded(static_cast<std::size_t>(bucket.chunk * data_.size()) * size_of(bucket.dtype));
}

/// (ranks, chunk)
Tensor ParameterShards::gathered(const Bucket& bucket) const {
  return {staging_[0].memory.data + bucket.gather_begin, data_.size(), bucket.chunk, bucket.chunk,
          bucket.dtype};
}

void ParameterShards::begin_gather() {
  RED_CHECK(!gathering(), "weights are gathered again before all have arrived");
  for (const ParameterShard& shard : shards_) {
    if (shard.has_master()) ops::copy(stream_, shard.value(), shard.weight);
  }
  num_begun_ = num_gathered_ = 0;
  gathered_in_time_ = 0;
  begin_more_gathers();
  if (!overlap_) finish_gather();
}

void ParameterShards::begin_more_gathers() {
  const std::size_t most = std::min(buckets_.size(), num_gathered_ + kMostGathers);
  for (; num_begun_ < most; ++num_begun_) {
    Bucket& bucket = in_forward_order(num_begun_);
    if (bucket.gather_after > num_gathered_) return;
    const Tensor all = gathered(bucket), own = all.row_range(data_.rank(), 1);
    for_each_part(bucket, data_.rank(), own, [&](std::size_t member, const RowRange&, const Tensor& part) {
      ops::copy(stream_, part, shards_[member].value());
    });
    bucket.gather = data_.all_gather(all, own);
  }
}

void ParameterShards::finish_next_gather() {
  Bucket& bucket = in_forward_order(num_gathered_);
  if (data_.test(bucket.gather)) gathered_in_time_ += bucket.chunk;
  data_.wait(bucket.gather, "all-gather of parameters");
  const Tensor all = gathered(bucket);
  for (int rank = 0; rank < data_.size(); ++rank) {
    if (rank == data_.rank()) continue;
    for_each_part(bucket, rank, all.row_range(rank, 1),
                  [&](std::size_t member, const RowRange& rows, const Tensor& part) {
                    const Tensor& whole = shards_[member].parameter->weight.value;
                    ops::copy(stream_, whole.row_range(rows.begin, rows.count), part);
                  });
  }
  ++num_gathered_;
  begin_more_gathers();
}

void ParameterShards::need(const std::optional<model::LayerOfParameter>& layer) {
  while (gathering() && used_by(in_forward_order(num_gathered_).last_layer, layer)) finish_next_gather();
}

void ParameterShards::finish_gather() {
  while (gathering()) finish_next_gather();
}

double ParameterShards::gathered_in_time() const {
  int64_t all = 0;
  for (const Bucket& bucket : buckets_) all += bucket.chunk;
  return all == 0 ? 1.0 : static_cast<double>(gathered_in_time_) / static_cast<double>(all);
}

}  // namespace red::optim

// The data axis of the mesh, seen from the optimizer: every rank updates a share of the rows of every
// parameter. Gradients are summed over the data ranks and each rank keeps its rows; updated rows are
// gathered. Both move buckets, many parameters in one collective, laid out rank-major: all that goes to rank
// 0, then to rank 1, ..., each part padded to the longest, so that rows need not divide by the number of
// ranks. Buckets follow the backward pass, last layer first, gains and the embedding at its end; the way back
// is the other way round, under the next forward pass (docs/adr/0024, docs/parallelism.md).
#pragma once

#include <optional>
#include <vector>

#include "device/stream.hpp"
#include "model/parameter_store.hpp"
#include "model/stage_parameters.hpp"
#include "optim/optimizer_config.hpp"
#include "parallel/mesh.hpp"

namespace red::optim {

/// Rows [begin, begin + count) of a parameter.
struct RowRange {
  int64_t begin = 0;
  int64_t count = 0;
};

/// The rows of rank `rank` of `num_ranks`: as even as can be, in order, together all of them.
RowRange shard_rows(int64_t rows, int num_ranks, int rank);

/// This rank's share of one parameter: some rows of the region that its tensor rank holds.
struct ParameterShard {
  const model::StoredParameter* parameter = nullptr;
  RowRange rows;        ///< within the region
  Tensor weight;        ///< (rows.count, cols) fp32: view into the rank's parameters, or master weights
  Tensor gradient;      ///< (rows.count, cols) after reduce(): summed over the data ranks, this rank's rows
  bool owned = true;    ///< updated here; false: another stage owns this copy (tied embedding)
  bool counted = true;  ///< in norms and checkpoints: of equal copies on several ranks, one

  int64_t first_row() const { return parameter->region.row_begin + rows.begin; }  ///< of the whole parameter
  /// The same rows as layers compute with them; their own memory where that is not fp32, when the optimizer
  /// updates fp32 master weights.
  Tensor value() const { return parameter->weight.value.row_range(rows.begin, rows.count); }
  bool has_master() const { return parameter->weight.value.dtype != DType::fp32; }
};

/// A rank's place among those of its stage: what its share of the parameters follows from.
struct ShardPlace {
  int num_data = 1;  ///< data ranks
  int data = 0;
  int tensor = 0;
};

/// The shards of a rank's parameters, before any reduction, without master weights. `owns_embedding`: whether
/// this stage's copy of the tied embedding is the one that counts. `store` must outlive them.
std::vector<ParameterShard> shards_of(const model::ParameterStore& store, bool owns_embedding,
                                      const ShardPlace& at);

/// The shard of the tied embedding; null on stages without a copy.
const ParameterShard* embedding_of(const std::vector<ParameterShard>& shards);

class ParameterShards {
 public:
  /// As shards_of() says. `store` and `mesh` must outlive it.
  ParameterShards(Stream& stream, const model::ParameterStore& store, bool owns_embedding,
                  const parallel::Mesh& mesh, const BucketOptions& options);
  /// Waits for a gather that is under way, unless an exception is.
  ~ParameterShards();
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  const std::vector<ParameterShard>& shards() const { return shards_; }
  const ParameterShard* embedding() const { return embedding_of(shards_); }

  /// Master weights get the initial values that the parameters have but for rounding.
  void initialize_masters(uint64_t seed);

  /// A layer's gradients are final: reductions begin of all buckets that are now whole. Backward order.
  void layer_done(const model::LayerOfParameter& layer);
  /// All gradients are final: begins the reductions that are left, and waits for all.
  void reduce();
  /// Of the last reduce(): the share of the elements that had arrived before it was called; 1 with one data
  /// rank.
  double hidden_share() const { return hidden_share_; }

  /// What layers compute with, on all data ranks, is to become what the shards' weights are. Own rows are so
  /// at once; those of other ranks may not be read before need() or finish_gather(). Without overlap all are
  /// there when this returns.
  void begin_gather();
  /// A forward pass comes to this layer; with nothing: to its begin, where the embedding is used and from
  /// where on gains are. What it uses there has arrived when this returns. Waits for the other data ranks to
  /// come as far, or to finish_gather().
  void need(const std::optional<model::LayerOfParameter>& layer);
  /// All rows have arrived. Collective over the data ranks while a gather is under way.
  void finish_gather();
  bool gathering() const { return num_gathered_ < buckets_.size(); }
  /// Of the last gather: the share of the elements that had arrived before they were needed; 1 with one data
  /// rank.
  double gathered_in_time() const;

  std::size_t master_bytes() const { return masters_.capacity(); }
  static std::size_t count_master_bytes(std::vector<ParameterShard> shards);
  /// Of buckets.
  std::size_t num_bytes() const { return memory_.capacity(); }
  /// What num_bytes() will be for these shards, on any of so many data ranks.
  static std::size_t count_bytes(const std::vector<ParameterShard>& shards, int num_data,
                                 const BucketOptions& options);

 private:
  struct Bucket {
    std::vector<std::size_t> members;                   ///< indices of shards
    std::optional<model::LayerOfParameter> last_layer;  ///< final when this layer is; nothing: at the end
    DType dtype = DType::fp32;                          ///< of the parameters; gradients are fp32
    int64_t chunk = 0;                                  ///< elements that each rank gets
    Tensor received;                                    ///< (1, chunk)
    std::size_t gather_begin = 0;  ///< where its rows are gathered, in bytes of both staging memories
    std::size_t gather_after = 0;  ///< so many gathers before it must be over, whose place it takes
    parallel::Request gather;
  };
  struct Staging {
    Tensor memory;  ///< room for (ranks, chunk) of any bucket; the second lies right behind the first
    parallel::Request request;
    const Bucket* bucket = nullptr;  ///< on its way, though its request may be empty: sent, and not yet read
  };

  static std::vector<Bucket> make_buckets(const std::vector<ParameterShard>& shards, int num_data,
                                          std::size_t bucket_bytes);
  static void allocate_masters(Arena& arena, std::vector<ParameterShard>& shards);
  static void allocate(Arena& arena, std::vector<Bucket>& buckets, Staging (&staging)[2], int num_data,
                       DType gradient_dtype);
  void begin_reduction(std::size_t bucket);
  void finish_reduction(Staging& staging);
  void measure_hidden_share();
  template <class Visit>
  void for_each_part(const Bucket& bucket, int rank, const Tensor& chunk, Visit visit) const;
  Tensor staged(const Staging& staging, const Bucket& bucket, DType dtype) const;
  Bucket& in_forward_order(std::size_t number) { return buckets_[buckets_.size() - 1 - number]; }
  void place_gathers();
  std::size_t gather_bytes(const Bucket& bucket) const;
  Tensor gathered(const Bucket& bucket) const;
  void begin_more_gathers();
  void finish_next_gather();

  Stream& stream_;
  parallel::Communicator& data_;
  DType gradient_dtype_;
  bool overlap_;
  std::vector<ParameterShard> shards_;
  Arena masters_;
  std::vector<Bucket> buckets_;
  Arena memory_;
  Staging staging_[2];
  std::size_t next_bucket_ = 0;  ///< whose reduction has not begun
  double hidden_share_ = 1.0;
  std::size_t num_begun_ = 0, num_gathered_ = 0;  ///< of the last gather's buckets, in forward order
  int64_t gathered_in_time_ = 0;                  ///< of their chunks' elements
};

}  // namespace red::optim

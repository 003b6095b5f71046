// Shards over the data ranks: every row has one owner, gradients arrive there summed, rows come back to
// everybody; for any number of ranks, rows that do not divide by it, fewer rows than ranks, and any size of
// bucket.
#include "optim/parameter_shards.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "model/models.hpp"
#include "optim/counted_gradients.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::optim {
namespace {

TEST(ShardRows, CoverEveryRowOnceAsEvenlyAsCanBe) {
  for (const int64_t rows : {0, 1, 2, 3, 7, 10, 64, 101}) {
    for (const int num_ranks : {1, 2, 3, 4, 5, 7, 16, 128}) {
      int64_t next = 0;
      for (int rank = 0; rank < num_ranks; ++rank) {
        const RowRange range = shard_rows(rows, num_ranks, rank);
        EXPECT_EQ(range.begin, next) << rows << " rows, rank " << rank << " of " << num_ranks;
        EXPECT_GE(range.count, rows / num_ranks);
        EXPECT_LE(range.count, (rows + num_ranks - 1) / num_ranks);
        next += range.count;
      }
      EXPECT_EQ(next, rows) << num_ranks << " ranks";
    }
  }
}

TEST(ShardRows, OfAVeryTallParameterDoNotOverflow) {
  const int64_t rows = int64_t{1} << 48;
  const RowRange last = shard_rows(rows, 10000, 9999);
  EXPECT_EQ(last.begin + last.count, rows);
  EXPECT_NEAR(static_cast<double>(last.count), static_cast<double>(rows) / 10000, 1.0);
}

/// A model with odd sizes, and parameters with fewer rows than ranks.
std::vector<model::ParameterSpec> specs() {
  std::vector<model::ParameterSpec> result = model::parameter_specs(model::tiny_model(model::Kind::red));
  result.push_back({"one_row", 1, 9, 0.1});
  result.push_back({"three_rows", 3, 2, 0.1});
  result.push_back({"one_element", 1, 1, 0.1});
  return result;
}

constexpr std::size_t kBucketBytes[] = {1, 600, 2000, std::size_t{32} << 20};

class ParameterShardsTest : public testing::Test {
 protected:
  ParameterShards make(std::size_t bucket_bytes) { return {stream_, store_, true, mesh_, {bucket_bytes}}; }
  double sum(double value) {
    parallel::Request request = mpi_.world().all_reduce(make_tensor(&value, 1, 1), parallel::ReduceOp::sum);
    mpi_.world().wait(request, "test");
    return value;
  }

  /// Each rank's own rows become step times what they begin with; what layers compute with, nothing known.
  void update_own_rows(const ParameterShards& shards, int step) {
    for (const model::StoredParameter& p : store_.parameters())
      fill(p.weight.value, 0, [](int64_t) { return -1.0; });
    for (const ParameterShard& shard : shards.shards()) {
      fill(shard.weight, shard.rows.begin,
           [&](int64_t i) { return step * element_value(shard.parameter->spec, i); });
    }
  }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};
  parallel::Mesh mesh_{{mpi_.size(), 1, 0, 1}, mpi_.world(), {}};
  model::ParameterStore store_{specs(), {}, true};
};

TEST_F(ParameterShardsTest, OwnEveryElementOnce) {
  const ParameterShards shards = make(600);
  double elements = 0.0, expected = 0.0;
  EXPECT_EQ(shards.shards().size(), store_.parameters().size());
  for (const ParameterShard& shard : shards.shards()) {
    EXPECT_EQ(shard.rows.begin, shard_rows(shard.parameter->spec.rows, mpi_.size(), mpi_.rank()).begin);
    EXPECT_EQ(shard.weight.rows, shard.rows.count) << shard.parameter->spec.name;
    EXPECT_EQ(shard.gradient.rows, shard.rows.count) << shard.parameter->spec.name;
    EXPECT_EQ(shard.gradient.cols, shard.parameter->spec.cols) << shard.parameter->spec.name;
    elements += static_cast<double>(shard.weight.size());
    expected += static_cast<double>(shard.parameter->spec.size());
  }
  EXPECT_EQ(sum(elements), expected);
}

TEST_F(ParameterShardsTest, ReduceSumsGradientsAtTheirOwner) {
  for (const std::size_t bucket_bytes : kBucketBytes) {
    ParameterShards shards = make(bucket_bytes);
    // Twice, because staging memory is used again.
    for (const int step : {1, 2}) {
      for (const model::StoredParameter& p : store_.parameters()) {
        fill(p.weight.gradient, 0,
             [&](int64_t i) { return step * (mpi_.rank() + 1) * element_value(p.spec, i); });
      }
      shards.reduce();
      const double ranks = 0.5 * mpi_.size() * (mpi_.size() + 1);
      double squares = 0.0, expected_squares = 0.0;
      for (const ParameterShard& shard : shards.shards()) {
        const model::ParameterSpec& spec = shard.parameter->spec;
        const auto expected = [&](int64_t i) { return step * ranks * element_value(spec, i); };
        EXPECT_EQ(num_wrong(shard.gradient, shard.rows.begin, expected), 0)
            << spec.name << ", buckets of " << bucket_bytes << " bytes, step " << step;
        squares += sum_of_squares(shard.gradient);
        for (int64_t i = 0; i < spec.size(); ++i) expected_squares += expected(i) * expected(i);
      }
      EXPECT_EQ(sum(squares), expected_squares);
    }
  }
}

// Gradients that are still to come must not have left yet: they are written only when their layer is done.
TEST_F(ParameterShardsTest, ReducesLayerByLayerInBackwardOrder) {
  const double ranks = 0.5 * mpi_.size() * (mpi_.size() + 1);
  for (const std::size_t bucket_bytes : kBucketBytes) {
    ParameterShards shards = make(bucket_bytes);
    const auto finish = [&](const std::optional<model::LayerOfParameter>& layer) {
      for (const model::StoredParameter& p : store_.parameters()) {
        const bool whole = p.spec.cut == model::TensorCut::none;
        if ((whole ? std::nullopt : model::layer_of(p.spec.name)) != layer) continue;
        fill(p.weight.gradient, 0, [&](int64_t i) { return (mpi_.rank() + 1) * element_value(p.spec, i); });
      }
    };
    for (int step = 0; step < 2; ++step) {
      for (const model::StoredParameter& p : store_.parameters())
        fill(p.weight.gradient, 0, [](int64_t) { return -1.0; });
      const model::ModelConfig model = model::tiny_model(model::Kind::red);
      for (const auto& [stack, layers] : {std::pair{model::Stack::decoder, model.decoder_layers},
                                          std::pair{model::Stack::encoder, model.encoder_layers}}) {
        for (int64_t layer = layers; layer-- > 0;) {
          finish(model::LayerOfParameter{stack, layer});
          shards.layer_done({stack, layer});
        }
      }
      finish(std::nullopt);
      shards.reduce();
      for (const ParameterShard& shard : shards.shards()) {
        const model::ParameterSpec& spec = shard.parameter->spec;
        EXPECT_EQ(num_wrong(shard.gradient, shard.rows.begin,
                            [&](int64_t i) { return ranks * element_value(spec, i); }),
                  0)
            << spec.name << ", buckets of " << bucket_bytes << " bytes, step " << step;
      }
    }
  }
}

TEST_F(ParameterShardsTest, GatherGivesEveryRankAllRows) {
  for (const std::size_t bucket_bytes : kBucketBytes) {
    ParameterShards shards = make(bucket_bytes);
    for (const int step : {1, 2}) {
      update_own_rows(shards, step);
      shards.begin_gather();
      EXPECT_EQ(shards.gathering(), mpi_.size() > 1);
      shards.finish_gather();
      EXPECT_FALSE(shards.gathering());
      for (const model::StoredParameter& p : store_.parameters()) {
        EXPECT_EQ(num_wrong(p.weight.value, 0, [&](int64_t i) { return step * element_value(p.spec, i); }), 0)
            << p.spec.name << ", buckets of " << bucket_bytes << " bytes, step " << step;
      }
    }
  }
}

/// The layers of the model in forward order; first nothing: what belongs to no layer.
std::vector<std::optional<model::LayerOfParameter>> forward_order() {
  const model::ModelConfig model = model::tiny_model(model::Kind::red);
  std::vector<std::optional<model::LayerOfParameter>> order = {std::nullopt};
  for (int64_t i = 0; i < model.encoder_layers; ++i)
    order.emplace_back(model::LayerOfParameter{model::Stack::encoder, i});
  for (int64_t i = 0; i < model.decoder_layers; ++i)
    order.emplace_back(model::LayerOfParameter{model::Stack::decoder, i});
  return order;
}

// A layer's weights are there when it is needed; with buckets of one parameter none that comes behind it is.
TEST_F(ParameterShardsTest, GatherLayerByLayerInForwardOrder) {
  for (const std::size_t bucket_bytes : kBucketBytes) {
    ParameterShards shards = make(bucket_bytes);
    for (const int step : {1, 2}) {
      update_own_rows(shards, step);
      shards.begin_gather();
      const auto order = forward_order();
      for (std::size_t now = 0; now < order.size(); ++now) {
        shards.need(order[now]);
        for (const ParameterShard& shard : shards.shards()) {
          const model::ParameterSpec& spec = shard.parameter->spec;
          const bool gain = spec.cut == model::TensorCut::none;
          const auto used =
              std::find(order.begin(), order.end(), gain ? std::nullopt : model::layer_of(spec.name));
          const bool needed = used - order.begin() <= static_cast<std::ptrdiff_t>(now);
          if (!needed && bucket_bytes > 1) continue;
          EXPECT_EQ(num_wrong(shard.parameter->weight.value, 0,
                              [&](int64_t i) {
                                const int64_t row = i / spec.cols - shard.rows.begin;
                                const bool own = row >= 0 && row < shard.rows.count;
                                return needed || own ? step * element_value(spec, i) : -1.0;
                              }),
                    0)
              << spec.name << " at layer " << now << ", buckets of " << bucket_bytes << " bytes";
        }
      }
      EXPECT_FALSE(shards.gathering());
    }
  }
}

// They share memory.
TEST_F(ParameterShardsTest, DoNotReduceWhileTheyGather) {
  if (mpi_.size() == 1) return;
  ParameterShards shards = make(600);
  shards.begin_gather();
  EXPECT_THROW(shards.reduce(), LogicError);
  EXPECT_THROW(shards.begin_gather(), LogicError);
}

TEST_F(ParameterShardsTest, WithoutOverlapNothingIsLeftUnderWay) {
  ParameterShards shards(stream_, store_, true, mesh_, {600, DType::fp32, false});
  shards.begin_gather();
  EXPECT_FALSE(shards.gathering());
  shards.layer_done({model::Stack::encoder, 0});
  shards.reduce();
  EXPECT_GT(shards.hidden_share(), 0.0);  // all that had begun
}

TEST_F(ParameterShardsTest, MoveNothingButTheirOwnRows) {
  ParameterShards shards = make(600);
  for (const model::StoredParameter& p : store_.parameters()) {
    fill(p.weight.value, 0, [&](int64_t i) { return element_value(p.spec, i); });
    fill(p.weight.gradient, 0, [](int64_t) { return 1.0; });
  }
  shards.reduce();
  for (const model::StoredParameter& p : store_.parameters()) {
    EXPECT_EQ(num_wrong(p.weight.value, 0, [&](int64_t i) { return element_value(p.spec, i); }), 0)
        << "reduce() changed the weight " << p.spec.name;
  }
}

TEST_F(ParameterShardsTest, OneOfTwoCopiesOfTheEmbeddingCounts) {
  for (const bool owns : {true, false}) {
    const ParameterShards shards(stream_, store_, owns, mesh_, {600});
    ASSERT_NE(shards.embedding(), nullptr);
    EXPECT_EQ(shards.embedding()->parameter->spec.name, "embedding.weight");
    for (const ParameterShard& shard : shards.shards()) {
      EXPECT_EQ(shard.owned, owns || &shard != shards.embedding()) << shard.parameter->spec.name;
    }
  }
  const model::ParameterStore without({{"one_row", 1, 9, 0.1}}, {}, true);
  EXPECT_EQ(ParameterShards(stream_, without, true, mesh_, {600}).embedding(), nullptr);
}

}  // namespace
}  // namespace red::optim

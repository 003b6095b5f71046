// The tied embedding on up to three stages: its gradient is the sum of both copies, its norm counts once, and
// both copies become the owner's.
#include "optim/tied_embedding.hpp"

#include <gtest/gtest.h>

#include "model/models.hpp"
#include "model/stage_parameters.hpp"
#include "optim/counted_gradients.hpp"
#include "parallel/mesh.hpp"
#include "parallel/mpi_environment.hpp"

namespace red::optim {
namespace {

const model::ModelConfig kModel = model::tiny_model(model::Kind::red);

/// One rank's parameters in a layout.
struct Rank {
  Rank(parallel::MpiEnvironment& mpi, Stream& stream, const parallel::Layout& layout)
      : mesh(layout, mpi.world(), model::layout_limits(kModel)),
        placement(parallel::place_layers(model::layer_counts(kModel), layout.encoder_stages,
                                         layout.decoder_stages)),
        store(model::stage_parameters(kModel, placement.stages[mesh.at().stage]),
              {layout.tensor, mesh.at().tensor}, true),
        shards(stream, store, placement.stages[mesh.at().stage].owns_embedding(), mesh, {600}),
        tied(stream, shards.embedding(), placement.embedding_holders, placement.embedding_owner,
             mesh.pipeline()) {}

  parallel::Mesh mesh;
  parallel::Placement placement;
  model::ParameterStore store;
  ParameterShards shards;
  TiedEmbedding tied;
};

class TiedEmbeddingTest : public testing::Test {
 protected:
  template <class F>
  void in_every_layout(F f) {
    for (const parallel::Layout& layout :
         parallel::legal_layouts(mpi_.size(), model::layout_limits(kModel))) {
      SCOPED_TRACE(layout.to_string());
      Rank rank(mpi_, stream_, layout);
      f(rank);
    }
  }
  double sum(double value) {
    parallel::Request request = mpi_.world().all_reduce(make_tensor(&value, 1, 1), parallel::ReduceOp::sum);
    mpi_.world().wait(request, "test");
    return value;
  }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};
};

/// Gradient that a rank computes: its copy's stage and its data rank can be told from it.
double factor(int stage, int data_rank) {
  return (stage == 0 ? 1.0 : 10.0) + data_rank;
}

TEST_F(TiedEmbeddingTest, GradientsOfAllCopiesAddUpAndCountOnce) {
  in_every_layout([&](Rank& rank) {
    const parallel::Layout& layout = rank.mesh.layout();
    for (const model::StoredParameter& p : rank.store.parameters()) {
      fill(p.weight.gradient, p.region.row_begin, [&](int64_t i) {
        return factor(rank.mesh.at().stage, rank.mesh.at().data) * element_value(p.spec, i);
      });
    }
    rank.shards.reduce();
    rank.tied.reduce();
    // What the whole embedding's gradient is: the sum over the stages that hold it and data ranks.
    double total = 0.0;
    for (const int stage : rank.placement.embedding_holders) {
      for (int data = 0; data < layout.data; ++data) total += factor(stage, data);
    }
    const model::ParameterSpec spec = model::parameter_specs(kModel).front();
    const auto expected = [&](int64_t i) { return total * element_value(spec, i); };
    const ParameterShard* shard = rank.shards.embedding();
    const bool counted = shard != nullptr && shard->counted;
    if (counted) {
      EXPECT_EQ(num_wrong(shard->gradient, shard->first_row(), expected), 0);
    }
    EXPECT_EQ(sum(counted ? 1.0 : 0.0), static_cast<double>(layout.data * layout.tensor)) << "owners";
    double expected_squares = 0.0;
    for (int64_t i = 0; i < spec.size(); ++i) expected_squares += expected(i) * expected(i);
    EXPECT_EQ(sum(counted ? sum_of_squares(shard->gradient) : 0.0), expected_squares);
  });
}

TEST_F(TiedEmbeddingTest, CountedShardsAreTheModelOnce) {
  in_every_layout([&](Rank& rank) {
    double elements = 0.0;
    for (const ParameterShard& shard : rank.shards.shards()) {
      if (shard.counted) elements += static_cast<double>(shard.weight.size());
    }
    EXPECT_EQ(sum(elements), static_cast<double>(model::num_parameters(kModel)));
  });
}

TEST_F(TiedEmbeddingTest, SharedRowsAreTheOwners) {
  in_every_layout([&](Rank& rank) {
    const ParameterShard* shard = rank.shards.embedding();
    const auto value = [](int64_t i) { return element_value(model::parameter_specs(kModel).front(), i); };
    if (shard != nullptr) fill(shard->parameter->weight.value, 0, [](int64_t) { return -1.0; });
    if (shard != nullptr && shard->owned) fill(shard->weight, shard->first_row(), value);
    rank.tied.share();
    rank.shards.begin_gather();
    rank.shards.finish_gather();
    if (shard == nullptr) return;
    const auto& [spec, region, weight] = *shard->parameter;
    EXPECT_EQ(num_wrong(shard->weight, shard->first_row(), value), 0);
    EXPECT_EQ(num_wrong(weight.value, region.row_begin, value), 0);
  });
}

}  // namespace
}  // namespace red::optim

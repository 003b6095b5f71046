// The tied embedding on two stages: its gradient is the sum of both copies, its norm counts once, and both
// copies become the owner's.
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
      : mesh(layout, mpi.world(), true),
        placement(parallel::place_layers(model::layer_counts(kModel), layout.encoder_stages,
                                         layout.decoder_stages)),
        store(model::stage_parameters(kModel, placement.stages[mesh.at().stage]), true),
        shards(stream, store, placement.stages[mesh.at().stage].owns_embedding(), mesh.data(), 600),
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
  /// Encoder and decoder on one stage, and where the ranks allow it on one stage each.
  template <class F>
  void in_every_layout(F f) {
    std::vector<parallel::Layout> layouts = {{mpi_.size(), 1, 0, 1}};
    if (mpi_.size() % 2 == 0) layouts.push_back({mpi_.size() / 2, 1, 1, 1});
    for (const parallel::Layout& layout : layouts) {
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
      fill(p.weight.gradient, 0, [&](int64_t i) {
        return factor(rank.mesh.at().stage, rank.mesh.at().data) * element_value(p.spec, i);
      });
    }
    rank.shards.reduce();
    rank.tied.reduce();
    // What the whole embedding's gradient is: the sum over stages and data ranks.
    double total = 0.0;
    for (int stage = 0; stage < layout.num_stages(); ++stage) {
      for (int data = 0; data < layout.data; ++data) total += factor(stage, data);
    }
    const ParameterShard& shard = *rank.shards.embedding();
    const auto expected = [&](int64_t i) { return total * element_value(shard.parameter->spec, i); };
    if (shard.owned) {
      EXPECT_EQ(num_wrong(shard.gradient, shard.rows.begin, expected), 0);
    }
    EXPECT_EQ(sum(shard.owned ? 1.0 : 0.0), static_cast<double>(layout.data)) << "owners";
    double squares = 0.0, expected_squares = 0.0;
    if (shard.owned) squares = sum_of_squares(shard.gradient);
    for (int64_t i = 0; i < shard.parameter->spec.size(); ++i) expected_squares += expected(i) * expected(i);
    EXPECT_EQ(sum(squares), expected_squares);
  });
}

TEST_F(TiedEmbeddingTest, OwnedShardsAreTheModelOnce) {
  in_every_layout([&](Rank& rank) {
    double elements = 0.0;
    for (const ParameterShard& shard : rank.shards.shards()) {
      if (shard.owned) elements += static_cast<double>(shard.weight.size());
    }
    EXPECT_EQ(sum(elements), static_cast<double>(model::num_parameters(kModel)));
  });
}

TEST_F(TiedEmbeddingTest, SharedRowsAreTheOwners) {
  in_every_layout([&](Rank& rank) {
    const ParameterShard& shard = *rank.shards.embedding();
    const Tensor whole = shard.parameter->weight.value;
    const auto value = [&](int64_t i) { return element_value(shard.parameter->spec, i); };
    fill(whole, 0, [](int64_t) { return -1.0; });
    if (shard.owned) fill(shard.weight, shard.rows.begin, value);
    rank.tied.share();
    EXPECT_EQ(num_wrong(shard.weight, shard.rows.begin, value), 0);
    rank.shards.gather();
    EXPECT_EQ(num_wrong(whole, 0, value), 0);
  });
}

}  // namespace
}  // namespace red::optim

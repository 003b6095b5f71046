// Gradients against finite differences of the loss, for what no golden file has: forms of attention's output
// norm, and dropout, whose masks are the same in every pass over a sample.
#include <gtest/gtest.h>

#include <cmath>

#include "train/small_run.hpp"

namespace red::test {
namespace {

/// Loss falls along the gradient as fast as the gradient's norm says, in every parameter's own direction.
/// fp32: a loss of about 4 has an error of some 1e-6; over a distance of 2 h = 4e-2 that is 1e-4 of a slope,
/// which small parameters' slopes of about 0.05 see as 2e-3; the curvature adds h^2.
constexpr double kStep = 2e-2, kTolerance = 2e-2, kLeastSlope = 2e-2;

void move(const Tensor& weight, const std::vector<float>& direction, float by) {
  for (int64_t i = 0; i < weight.rows; ++i) {
    float* row = weight.row_range(i, 1).as<float>();
    for (int64_t j = 0; j < weight.cols; ++j) row[j] += by * direction[i * weight.cols + j];
  }
}

class GradientTest : public testing::TestWithParam<std::pair<model::AttentionOutputNorm, double>> {
 protected:
  parallel::MpiEnvironment mpi_;
};

TEST_P(GradientTest, EqualsFiniteDifferences) {
  config::RunConfig config = small_config(model::Kind::red);
  config.model.attention_output_norm = GetParam().first;
  config.train.dropout = GetParam().second;
  config.train.micro_batch = 8;
  Stream stream(1);
  parallel::Mesh mesh({1, 1, 0, 1}, mpi_.world(), model::layout_limits(config.model));
  const data::SyntheticProvider provider = small_provider(model::Kind::red);
  train::Engine engine(train::training_options(config, {kEncoderLength, kDecoderLength}), mesh, stream);
  engine.initialize_parameters();
  train::BatchLoader loader(provider, train::decoder_positions(config.model), 8, 8, 1, 0);
  const auto batches = loader.load(0);
  const train::StepResult at = engine.gradients(batches, 0.0);
  std::vector<std::vector<float>> directions;
  std::vector<double> slopes;
  for (const optim::ParameterShard& shard : engine.shards().shards()) {
    auto& direction = directions.emplace_back();
    double squares = 0.0;
    for (int64_t i = 0; i < shard.gradient.rows; ++i) {
      const float* row = shard.gradient.row_range(i, 1).as<float>();
      for (int64_t j = 0; j < shard.gradient.cols; ++j) {
        direction.push_back(row[j]);
        squares += static_cast<double>(row[j]) * row[j];
      }
    }
    const double norm = std::sqrt(squares);
    for (float& x : direction) x = static_cast<float>(x / std::max(norm, 1e-30));
    slopes.push_back(norm / static_cast<double>(at.targets));
  }
  int checked = 0;
  for (std::size_t p = 0; p < directions.size(); ++p) {
    if (slopes[p] < kLeastSlope) continue;  // lost in the loss's rounding
    const optim::ParameterShard& shard = engine.shards().shards()[p];
    move(shard.weight, directions[p], static_cast<float>(kStep));
    const double above = engine.gradients(batches, 0.0).loss;
    move(shard.weight, directions[p], static_cast<float>(-2 * kStep));
    const double below = engine.gradients(batches, 0.0).loss;
    move(shard.weight, directions[p], static_cast<float>(kStep));
    EXPECT_NEAR((above - below) / (2 * kStep) / slopes[p], 1.0, kTolerance) << shard.parameter->spec.name;
    ++checked;
  }
  EXPECT_GT(checked, 20);
}

INSTANTIATE_TEST_SUITE_P(OutputNorms, GradientTest,
                         testing::Values(std::pair{model::AttentionOutputNorm::none, 0.0},
                                         std::pair{model::AttentionOutputNorm::head, 0.0},
                                         std::pair{model::AttentionOutputNorm::head, 0.2},
                                         std::pair{model::AttentionOutputNorm::concat, 0.0},
                                         std::pair{model::AttentionOutputNorm::after_wo, 0.0},
                                         std::pair{model::AttentionOutputNorm::after_wo, 0.2}));

}  // namespace
}  // namespace red::test

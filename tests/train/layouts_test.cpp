// The promise of every layout: ten steps of a small model with odd sizes compute what one rank computes, in
// each legal layout of the ranks at hand, with and without sequence parallelism. Prints a table:
//   ctest --preset release -V -R train_layouts_test | grep '|'
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "train/small_run.hpp"

namespace red::test {
namespace {

constexpr double kLoss = 1e-5;  // relative, at every step
constexpr double kGradient =
    2e-5;  // relative to max(own norm, 1e-3 x global norm): both are within 1e-5 of float64
// After ten steps parameters differ by rounding, some by more: where a gradient is zero but for rounding,
// Adafactor takes its sign. The small rate keeps that small.
constexpr double kLaterGradient = 1e-4;
// In bf16 tensor ranks round their parts of a sum by 2^-9 before it: the same, relative to the global norm.
// Data ranks and stages add in fp32, and are as close as in fp32.
constexpr double kLossBf16 = 5e-3, kGradientBf16 = 5e-2, kLaterGradientBf16 = 2e-1;
constexpr double kRate = 1e-3;
constexpr int kSteps = 10;
constexpr int64_t kBatch = 8;

/// Vocabulary and widths that no number of ranks divides; five layers, or one for each stage.
config::RunConfig odd_config(model::Kind kind, const parallel::Layout& layout) {
  config::RunConfig config = small_config(kind);
  model::ModelConfig& m = config.model;
  m.d_model = 20;
  m.d_ff = 35;
  m.num_heads = 9;
  m.head_dim = 4;
  m.encoder_layers = kind == model::Kind::red ? std::max(5, layout.encoder_stages) : 0;
  m.decoder_layers = std::max(5, layout.decoder_stages);
  config.train.micro_batch = 2;
  config.train.global_batch = kBatch * layout.data;
  config.optimizer.factored = layout.data % 2 == 0;
  config.optimizer.min_dim_to_factor = 16;
  config.parallel = layout;
  // Splits by hand where a stack has two stages, as uneven as can be.
  if (layout.encoder_stages == 2) config.split.encoder = {m.encoder_layers - 1, 1};
  if (layout.decoder_stages == 2) config.split.decoder = {1, m.decoder_layers - 1};
  return config;
}

/// What a run gives: losses, and whole gradients before the first step and after the last.
struct Outcome {
  std::vector<double> losses;
  std::map<std::string, std::vector<double>> first, last;
};

/// Every gradient, whole, on all ranks of `mesh`: each element from the one rank that counts it.
std::map<std::string, std::vector<double>> whole_gradients(train::Engine& engine, const parallel::Mesh& mesh,
                                                           const model::ModelConfig& model) {
  std::map<std::string, std::vector<double>> result;
  for (const model::ParameterSpec& spec : model::parameter_specs(model))
    result[spec.name].resize(spec.size());
  for (const optim::ParameterShard& shard : engine.shards().shards()) {
    if (!shard.counted) continue;
    const auto& [spec, region, weight] = *shard.parameter;
    for (int64_t i = 0; i < shard.gradient.rows; ++i) {
      const float* row = shard.gradient.row_range(i, 1).as<float>();
      std::copy_n(row, region.num_cols,
                  result[spec.name].begin() + (shard.first_row() + i) * spec.cols + region.col_begin);
    }
  }
  for (auto& [name, values] : result) {
    parallel::Request request = mesh.world().all_reduce(
        make_tensor(values.data(), static_cast<int64_t>(values.size()), 1), parallel::ReduceOp::sum);
    mesh.world().wait(request, "test");
  }
  return result;
}

Outcome train(const config::RunConfig& config, parallel::Communicator& world, Stream& stream) {
  parallel::Mesh mesh(config.parallel, world, model::layout_limits(config.model));
  const data::SyntheticProvider provider = small_provider(config.model.kind);
  train::Engine engine(
      train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}), mesh,
      stream);
  engine.initialize_parameters();
  train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                            config.train.micro_batch, config.parallel.data, mesh.at().data);
  const auto batch = [&](int step) {
    return loader.load(static_cast<uint64_t>(step * config.train.global_batch));
  };
  Outcome outcome;
  engine.gradients(batch(0), 0.0);
  outcome.first = whole_gradients(engine, mesh, config.model);
  for (int step = 0; step < kSteps; ++step)
    outcome.losses.push_back(engine.train_step(batch(step), kRate).loss);
  outcome.losses.push_back(engine.gradients(batch(kSteps), 0.0).loss);
  outcome.last = whole_gradients(engine, mesh, config.model);
  stream.set_progress_hook({});
  return outcome;
}

double norm(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

/// The largest error of any gradient, relative to max(own norm, floor x global norm); with a floor of 1, the
/// global norm.
double worst_error(const std::map<std::string, std::vector<double>>& got,
                   const std::map<std::string, std::vector<double>>& expected, double floor) {
  double squares = 0.0, worst = 0.0;
  for (const auto& [name, values] : expected) squares += norm(values) * norm(values);
  for (const auto& [name, values] : expected) {
    std::vector<double> difference = got.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) difference[i] -= values[i];
    worst = std::max(worst, norm(difference) / std::max(norm(values), floor * std::sqrt(squares)));
  }
  return worst;
}

struct Tolerance {
  double loss, first, last, floor;
};
constexpr Tolerance kRoundedAlike{kLoss, kGradient, kLaterGradient, 1e-3};
constexpr Tolerance kRoundedApart{kLossBf16, kGradientBf16, kLaterGradientBf16, 1.0};

void train_in_every_layout(model::Precision precision) {
  parallel::MpiEnvironment mpi;
  Stream stream(1);
  const auto alone = mpi.world().split(mpi.world().rank(), 0, "alone");
  const bool prints = mpi.world().rank() == 0;
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    // Reference runs differ by layers and batch, which follow from the layout.
    std::map<std::vector<int64_t>, Outcome> references;
    for (const parallel::Layout& layout : layouts(mpi.size(), odd_config(kind, {1, 1, 4, 8}).model)) {
      SCOPED_TRACE(layout.to_string());
      config::RunConfig config = odd_config(kind, layout);
      config.train.precision = precision;
      const bool rounds_parts = precision == model::Precision::bf16 && layout.tensor > 1;
      const Tolerance& tolerance = rounds_parts ? kRoundedApart : kRoundedAlike;
      Outcome& expected =
          references[{config.model.encoder_layers, config.model.decoder_layers, config.train.global_batch}];
      if (expected.losses.empty()) {
        config::RunConfig one = config;
        one.parallel = {};
        one.split = {};
        expected = train(one, *alone, stream);
      }
      const Outcome got = train(config, mpi.world(), stream);
      double loss_error = 0.0;
      for (std::size_t i = 0; i < got.losses.size(); ++i)
        loss_error = std::max(loss_error, std::abs(got.losses[i] / expected.losses[i] - 1.0));
      const double first = worst_error(got.first, expected.first, tolerance.floor),
                   last = worst_error(got.last, expected.last, tolerance.floor);
      EXPECT_LT(loss_error, tolerance.loss);
      EXPECT_LT(first, tolerance.first);
      EXPECT_LT(last, tolerance.last);
      if (prints)
        fmt::print("| {} | {} | {:<75} | loss {:.1e} | gradients {:.1e}, after {} steps {:.1e} |\n",
                   kind == model::Kind::red ? "red" : "dec", name_of(precision), layout.to_string(),
                   loss_error, first, kSteps, last);
    }
  }
}

TEST(Layouts, EveryOneTrainsAsOneRankDoes) {
  train_in_every_layout(model::Precision::fp32);
}

TEST(Layouts, EveryOneTrainsAsOneRankDoesInBf16) {
  train_in_every_layout(model::Precision::bf16);
}

// Norms over a width that tensor ranks hold together, and behind their sum.
TEST(Layouts, EveryOutputNormOnTensorRanks) {
  parallel::MpiEnvironment mpi;
  Stream stream(1);
  const auto alone = mpi.world().split(mpi.world().rank(), 0, "alone");
  for (const auto norm : {model::AttentionOutputNorm::none, model::AttentionOutputNorm::concat,
                          model::AttentionOutputNorm::after_wo}) {
    for (const bool sequence_parallel : {false, true}) {
      config::RunConfig config = odd_config(model::Kind::red, {1, mpi.size(), 0, 1, sequence_parallel});
      config.model.attention_output_norm = norm;
      SCOPED_TRACE(fmt::format("norm {} on {}", static_cast<int>(norm), config.parallel.to_string()));
      const Outcome got = train(config, mpi.world(), stream);
      config.parallel = {};
      const Outcome expected = train(config, *alone, stream);
      for (std::size_t i = 0; i < got.losses.size(); ++i)
        EXPECT_NEAR(got.losses[i] / expected.losses[i], 1.0, kLoss);
      EXPECT_LT(worst_error(got.first, expected.first, kRoundedAlike.floor), kGradient);
      EXPECT_LT(worst_error(got.last, expected.last, kRoundedAlike.floor), kLaterGradient);
    }
  }
}

}  // namespace
}  // namespace red::test

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
// Adafactor takes its sign, and the parameter moves by the rate. At a rate of 1e-3 one such parameter changed
// all gradients by up to 7e-4. At this one a single matrix that is not updated changes them by 2.5e-4
// to 2.5e-3.
constexpr double kLaterGradient = 1e-4;
// In bf16 layouts round parts of sums apart, and weights that differ by fp32 rounding may be rounded apart
// after a step. So a layout is held to fp32, to be as exact as one rank in bf16 is.
constexpr double kLossBf16 = 3e-3;      // relative, at every step
constexpr double kGradientBf16 = 6e-2;  // relative to the global norm: tens of roundings of 2^-9
constexpr double kLessExactBf16 = 2.0;
constexpr double kLaterLessExactBf16 = 3.0;  // by chance, once weights are rounded apart: 2.02 was seen
constexpr double kRoundedApartBf16 = 2e-3;   // a rounding of 2^-9 here and there
struct Steps {
  int count;
  double rate;
};
constexpr Steps kSteps{10, 3e-5};
constexpr Steps kStepsBf16{3, 1e-3};  // weights move by more than bf16 rounds them
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

/// At a constant learning rate.
Outcome train(const config::RunConfig& config, Steps steps, parallel::Communicator& world, Stream& stream) {
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
  for (int step = 0; step < steps.count; ++step)
    outcome.losses.push_back(engine.train_step(batch(step), steps.rate).loss);
  outcome.losses.push_back(engine.gradients(batch(steps.count), 0.0).loss);
  outcome.last = whole_gradients(engine, mesh, config.model);
  stream.set_progress_hook({});
  return outcome;
}

double norm(const std::vector<double>& x) {
  double sum = 0.0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

/// The largest error of any gradient, relative to max(own norm, 1e-3 x global norm).
double worst_error(const std::map<std::string, std::vector<double>>& got,
                   const std::map<std::string, std::vector<double>>& expected) {
  double squares = 0.0, worst = 0.0;
  for (const auto& [name, values] : expected) squares += norm(values) * norm(values);
  for (const auto& [name, values] : expected) {
    std::vector<double> difference = got.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) difference[i] -= values[i];
    worst = std::max(worst, norm(difference) / std::max(norm(values), 1e-3 * std::sqrt(squares)));
  }
  return worst;
}

/// The error of all gradients together, relative to the global norm.
double total_error(const std::map<std::string, std::vector<double>>& got,
                   const std::map<std::string, std::vector<double>>& expected) {
  double squares = 0.0, errors = 0.0;
  for (const auto& [name, values] : expected) {
    squares += norm(values) * norm(values);
    const std::vector<double>& other = got.at(name);
    for (std::size_t i = 0; i < values.size(); ++i) errors += std::pow(other[i] - values[i], 2);
  }
  return std::sqrt(errors / squares);
}

double largest_loss_error(const Outcome& got, const Outcome& expected) {
  double error = 0.0;
  for (std::size_t i = 0; i < got.losses.size(); ++i)
    error = std::max(error, std::abs(got.losses[i] / expected.losses[i] - 1.0));
  return error;
}

class LayoutsTest : public testing::Test {
 protected:
  LayoutsTest() { train::agree_on_gemm(mpi_.world(), stream_); }

  /// f(name, layout, its run, the same on one rank in the same precision, and in fp32) for each one.
  template <class F>
  void for_each_layout(model::Precision precision, double dropout, Steps steps, F f) {
    for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
      // Reference runs differ by layers and batch, which follow from the layout.
      std::map<std::vector<int64_t>, std::pair<Outcome, Outcome>> references;
      for (const parallel::Layout& layout : layouts(mpi_.size(), odd_config(kind, {1, 1, 4, 8}).model)) {
        SCOPED_TRACE(layout.to_string());
        config::RunConfig config = odd_config(kind, layout);
        // The norm of a head of four elements is now and then near zero, where bf16 is off by any factor.
        if (precision == model::Precision::bf16) config.model.head_dim = 12;
        config.train.dropout = dropout;
        auto& [same, exact] =
            references[{config.model.encoder_layers, config.model.decoder_layers, config.train.global_batch}];
        if (exact.losses.empty()) {
          exact = alone(config, steps, model::Precision::fp32);
          same = precision == model::Precision::fp32 ? exact : alone(config, steps, precision);
        }
        config.train.precision = precision;
        const std::string name =
            fmt::format("{} | {}", kind == model::Kind::red ? "red" : "dec", layout.to_string());
        f(name, layout, train(config, steps, mpi_.world(), stream_), same, exact);
      }
    }
  }
  bool prints() { return mpi_.world().rank() == 0; }
  Outcome alone(config::RunConfig config, Steps steps, model::Precision precision) {
    config.train.precision = precision;
    config.parallel = {};
    config.split = {};
    return train(config, steps, *alone_, stream_);
  }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};
  std::unique_ptr<parallel::Communicator> alone_ = mpi_.world().split(mpi_.world().rank(), 0, "alone");
};

TEST_F(LayoutsTest, EveryOneTrainsAsOneRankDoes) {
  for_each_layout(model::Precision::fp32, 0.0, kSteps,
                  [&](const std::string& name, const parallel::Layout&, const Outcome& got,
                      const Outcome& expected, const Outcome&) {
                    const double loss = largest_loss_error(got, expected),
                                 first = worst_error(got.first, expected.first),
                                 last = worst_error(got.last, expected.last);
                    EXPECT_LT(loss, kLoss);
                    EXPECT_LT(first, kGradient);
                    EXPECT_LT(last, kLaterGradient);
                    if (prints())
                      fmt::print("| {:<80} | loss {:.1e} | gradients {:.1e}, after {} steps {:.1e} |\n", name,
                                 loss, first, kSteps.count, last);
                  });
}

TEST_F(LayoutsTest, EveryOneDropsWhatOneRankDrops) {
  for_each_layout(model::Precision::fp32, 0.1, {1, kSteps.rate},
                  [&](const std::string&, const parallel::Layout&, const Outcome& got,
                      const Outcome& expected, const Outcome&) {
                    EXPECT_LT(largest_loss_error(got, expected), kLoss);
                    EXPECT_LT(worst_error(got.first, expected.first), kGradient);
                    EXPECT_LT(worst_error(got.last, expected.last), kLaterGradient);
                  });
}

TEST_F(LayoutsTest, EveryOneIsAsExactInBf16AsOneRank) {
  for_each_layout(model::Precision::bf16, 0.0, kStepsBf16,
                  [&](const std::string& name, const parallel::Layout& layout, const Outcome& got,
                      const Outcome& same, const Outcome& exact) {
                    const double loss = largest_loss_error(got, exact),
                                 first = total_error(got.first, exact.first),
                                 last = total_error(got.last, exact.last);
                    EXPECT_LT(loss, kLossBf16);
                    EXPECT_LT(first, kGradientBf16);
                    EXPECT_LT(first, kLessExactBf16 * total_error(same.first, exact.first));
                    EXPECT_LT(last, kLaterLessExactBf16 * total_error(same.last, exact.last));
                    // Before the first step tensor ranks round apart, others only where an fp32 sum is
                    // rounded afterwards.
                    if (layout.tensor == 1) {
                      EXPECT_LT(total_error(got.first, same.first), kRoundedApartBf16);
                    }
                    if (prints())
                      fmt::print(
                          "| {:<80} | bf16: loss {:.1e} | gradients {:.1e}, one rank {:.1e}, after {} steps "
                          "{:.1e}, {:.1e} "
                          "|\n",
                          name, loss, first, total_error(same.first, exact.first), kStepsBf16.count, last,
                          total_error(same.last, exact.last));
                  });
}

// Norms over a width that tensor ranks hold together, and behind their sum.
TEST_F(LayoutsTest, EveryOutputNormOnTensorRanks) {
  for (const auto norm : {model::AttentionOutputNorm::none, model::AttentionOutputNorm::concat,
                          model::AttentionOutputNorm::after_wo}) {
    for (const bool sequence_parallel : {false, true}) {
      config::RunConfig config = odd_config(model::Kind::red, {1, mpi_.size(), 0, 1, sequence_parallel});
      config.model.attention_output_norm = norm;
      SCOPED_TRACE(fmt::format("norm {} on {}", static_cast<int>(norm), config.parallel.to_string()));
      const Outcome got = train(config, kSteps, mpi_.world(), stream_);
      const Outcome expected = alone(config, kSteps, model::Precision::fp32);
      for (std::size_t i = 0; i < got.losses.size(); ++i)
        EXPECT_NEAR(got.losses[i] / expected.losses[i], 1.0, kLoss);
      EXPECT_LT(worst_error(got.first, expected.first), kGradient);
      EXPECT_LT(worst_error(got.last, expected.last), kLaterGradient);
    }
  }
}

}  // namespace
}  // namespace red::test

// Validation during training, in every layout: it leaves training as it was, bit for bit, and its losses are
// those of an evaluation of the same windows with the checkpoint of that step.
#include "eval/held_out.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "data/token_file_writer.hpp"
#include "train/run_options.hpp"
#include "train/small_run.hpp"

namespace red::eval {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kFirstWindows = 7, kSecondWindows = 3, kTaken = 5;
/// Of a mean in nats; fp32 log-probabilities, each of sums in another order.
constexpr double kNats = 1e-5;

class HeldOutTest : public testing::Test {
 protected:
  HeldOutTest() {
    ids_.bos = 1;
    ids_.eod = 2;
    ids_.vocabulary_size = test::kVocabulary;
    write("first", kFirstWindows, 1);
    write("second", kSecondWindows, 2);
    folder_.barrier();
  }

  /// Six steps with a validation after every third.
  config::RunConfig config_of(model::Kind kind) const {
    config::RunConfig config = test::small_config(kind);
    config.data.window = window(kind);
    config.data.missing_eod = data::MissingEod::add;
    for (const std::string name : {"first", "none", "second"}) {
      data::SourceConfig& source = config.data.sources.emplace_back();
      source.name = name;
      if (name != "none") source.held_out = prefix(kind, name);
    }
    config.train.log_every = 4;
    config.train.validate_every = 3;
    config.train.validation_windows = kTaken;
    config.train.micro_batch = 2;
    return config;
  }

  /// The metrics of a run in this layout, by step.
  std::map<int64_t, json> metrics_of(const parallel::Layout& layout, const config::RunConfig& config,
                                     const fs::path& run_dir) {
    std::function<std::vector<train::ValidationLoss>(train::Engine&)> validate;
    config::RunConfig own = config;
    own.train.micro_batch = std::min(own.train.micro_batch, own.train.global_batch / layout.data);
    if (config.train.validate_every > 0) validate = Validation(own, ids_);
    test::run(mpi_.world(), layout, config, run_dir, validate);
    folder_.barrier();
    std::map<int64_t, json> metrics;
    std::ifstream in(run_dir / "metrics.jsonl");
    for (std::string line; std::getline(in, line);) {
      json step = json::parse(line);
      metrics[step.at("step")] = step;
    }
    return metrics;
  }

  /// What an engine for evaluation says of the run's newest checkpoint.
  std::vector<SourcePerplexity> evaluate(config::RunConfig config, const fs::path& run_dir) {
    config.parallel = {mpi_.size(), 1, 0, 1, false};
    Stream stream(1);
    train::agree_on_gemm(mpi_.world(), stream);
    parallel::Mesh mesh(config.parallel, mpi_.world(), model::layout_limits(config.model));
    const bool has_encoder = config.model.has_encoder();
    train::Engine engine(
        train::evaluation_options(config, data::sample_lengths(config.data, has_encoder), 3, 1), mesh,
        stream);
    engine.load(checkpoint::Reader(checkpoint::find_latest(run_dir / "checkpoints").value()), false);
    PerplexityOptions options;
    options.num_late_targets = data::num_late_targets(config.data);
    options.micro_batch = 3;
    options.max_windows = kTaken;
    options.positions = train::decoder_positions(config.model);
    std::vector<SourcePerplexity> results;
    for (const auto& samples : open_held_out(config.data, ids_, has_encoder))
      results.push_back(perplexity(engine, *samples, options));
    return results;
  }

  static void expect_same(const json& validation, const std::vector<SourcePerplexity>& expected) {
    EXPECT_EQ(validation.size(), expected.size());
    for (const SourcePerplexity& source : expected) {
      const json& loss = validation.at(source.source);
      EXPECT_EQ(loss.at("windows"), source.windows);
      EXPECT_EQ(loss.at("targets"), source.all.count);
      EXPECT_NEAR(loss.at("loss").get<double>(), source.all.mean(), kNats);
      EXPECT_NEAR(loss.at("second_half_loss").get<double>(), source.second_half.mean(), kNats);
    }
  }

  void check(model::Kind kind, const std::function<void(config::RunConfig&)>& change = {}) {
    for (const parallel::Layout& layout : test::layouts(mpi_.size(), kind)) {
      SCOPED_TRACE(layout.to_string());
      config::RunConfig config = config_of(kind);
      if (change) change(config);
      const fs::path dir = folder_.path() / fmt::format("run-{}", num_runs_++);
      const auto with = metrics_of(layout, config, dir);
      // Steps are written where they are logged, where they are validated, and at the end.
      std::vector<int64_t> steps;
      for (const auto& [step, line] : with) steps.push_back(step);
      EXPECT_EQ(steps, (std::vector<int64_t>{3, 4, 6}));
      EXPECT_FALSE(with.at(4).contains("validation"));
      expect_same(with.at(6).at("validation"), evaluate(config, dir));
      EXPECT_NE(with.at(3).at("validation"), with.at(6).at("validation"));
      config.train.validate_every = 0;
      const auto without = metrics_of(layout, config, dir.string() + "-without");
      for (const int64_t step : {4, 6}) EXPECT_EQ(with.at(step).at("loss"), without.at(step).at("loss"));
      EXPECT_FALSE(without.at(6).contains("validation"));
      folder_.barrier();
    }
  }

  parallel::MpiEnvironment mpi_;
  test::SharedFolder folder_{mpi_.world()};
  data::SpecialIds ids_;

 private:
  /// No longer than the run's own samples.
  static int64_t window(model::Kind kind) {
    return kind == model::Kind::red ? 2 * test::kDecoderLength : test::kDecoderLength - 1;
  }
  fs::path prefix(model::Kind kind, const std::string& name) const {
    return folder_.path() / fmt::format("{}-{}", name, window(kind));
  }
  void write(const std::string& name, int64_t num_windows, uint64_t seed) {
    for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
      if (mpi_.rank() != 0) continue;
      data::TokenFileWriter writer(prefix(kind, name), data::TokenType::u16);
      std::vector<int32_t> tokens(num_windows * window(kind));
      for (std::size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = static_cast<int32_t>(3 + philox(seed, i)[0] % (test::kVocabulary - 3));
      writer.append(tokens);
      writer.end_document();
      writer.finish();
    }
  }

  int num_runs_ = 0;
};

TEST_F(HeldOutTest, RedLlm) {
  check(model::Kind::red);
}

TEST_F(HeldOutTest, DecLlm) {
  check(model::Kind::dec);
}

// A schedule that keeps more micro-batches in flight.
TEST_F(HeldOutTest, ZeroBubblePipeline) {
  check(model::Kind::red, [](config::RunConfig& config) {
    config.pipeline_schedule = parallel::PipelineSchedule::zero_bubble_h1;
    config.train.micro_batch = 1;
  });
}

TEST_F(HeldOutTest, FullRecomputation) {
  check(model::Kind::red, [](config::RunConfig& config) { config.train.recompute = model::Recompute::full; });
}

TEST_F(HeldOutTest, NoHeldOutTextIsRefused) {
  config::RunConfig config = config_of(model::Kind::dec);
  for (data::SourceConfig& source : config.data.sources) source.held_out.clear();
  EXPECT_THROW(Validation(config, ids_), ConfigError);
}

}  // namespace
}  // namespace red::eval

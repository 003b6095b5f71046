// Perplexity of golden models on windows made of the golden examples, against the sum of -log p that float64
// gave them, in every layout of the ranks at hand.
#include "eval/perplexity.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "data/token_file_writer.hpp"
#include "golden/golden_engine.hpp"
#include "train/small_run.hpp"

namespace red::eval {
namespace {

/// Of a mean in nats: fp32 log-probabilities, each within 1e-5 of float64 (golden_step_test), no bias.
constexpr double kNats = 5e-6;

using test::GoldenExample;
using test::GoldenStep;

/// Token ids that a window of this example has: its encoder's input, then its targets.
std::vector<int32_t> window_of(const GoldenExample& example) {
  std::vector<int32_t> tokens = example.sample.encoder_input;
  tokens.insert(tokens.end(), example.sample.decoder_target.begin(), example.sample.decoder_target.end());
  return tokens;
}

/// -log p of the last `count` targets of each of these examples, in float64.
TokenLoss golden_loss(std::span<const GoldenExample> examples, int64_t count) {
  TokenLoss loss;
  for (const GoldenExample& example : examples) {
    const auto& p = example.log_probability;
    for (auto it = p.end() - count; it != p.end(); ++it) loss.sum -= *it;
    loss.count += count;
  }
  return loss;
}

class PerplexityTest : public testing::Test {
 protected:
  /// A source with these examples as its windows, and half a window behind them that does not count. Its
  /// documents' ends are added in reading; the one that is added lies behind the last window.
  std::unique_ptr<data::FixedProvider> source(const std::string& name, const GoldenStep& golden,
                                              std::span<const GoldenExample> examples) {
    const auto window = static_cast<int64_t>(window_of(golden.examples.front()).size());
    const std::filesystem::path prefix = folder_.path() / (golden.name + "-" + name);
    if (mpi_.rank() == 0) {
      data::TokenFileWriter writer(prefix, data::TokenType::u16);
      for (const GoldenExample& example : examples) writer.append(window_of(example));
      writer.append(std::vector<int32_t>(window / 2, 5));
      writer.end_document();
      writer.finish();
    }
    folder_.barrier();
    data::SpecialIds ids;
    ids.bos = golden.examples.front().sample.decoder_input.front();
    ids.eod = 6;
    ids.vocabulary_size = golden.model.vocab_size;
    data::DataConfig config;
    config.window = window;
    config.missing_eod = data::MissingEod::add;
    return data::make_evaluation_provider(config, name, prefix, ids, golden.model.has_encoder());
  }

  /// f(golden file, engine, options) in every layout.
  template <class F>
  void for_each_case(F f) {
    for (const std::string name : {"red_pretrain", "dec_pretrain"}) {
      const GoldenStep golden = test::read_golden_step(test::golden_dir() / (name + ".h5"));
      std::vector<data::Sample> samples;
      for (const GoldenExample& example : golden.examples) samples.push_back(example.sample);
      PerplexityOptions options;
      options.num_late_targets = static_cast<int64_t>(window_of(golden.examples.front()).size()) / 2;
      for (const parallel::Layout& layout : test::layouts_for(mpi_.size(), golden.model)) {
        SCOPED_TRACE(fmt::format("{} on {}", name, layout.to_string()));
        test::GoldenEngine engine(mpi_, layout, golden.model, golden.z_loss, {}, {samples},
                                  golden.parameters);
        f(golden, engine.engine(), options);
      }
    }
  }

  static void expect_loss(const TokenLoss& got, const TokenLoss& expected) {
    EXPECT_EQ(got.count, expected.count);
    EXPECT_NEAR(got.mean(), expected.mean(), kNats);
    EXPECT_NEAR(got.perplexity() / std::exp(expected.mean()), 1.0, kNats);
  }

  parallel::MpiEnvironment mpi_;
  test::SharedFolder folder_{mpi_.world()};
};

TEST_F(PerplexityTest, IsTheMeanOfTheGoldenLogProbabilities) {
  for_each_case([&](const GoldenStep& golden, train::Engine& engine, PerplexityOptions options) {
    const auto windows = source("all", golden, golden.examples);
    EXPECT_EQ(windows->num_samples(), 3);
    data::Sample first;
    windows->get(0, first);
    EXPECT_EQ(first.decoder_input, golden.examples.front().sample.decoder_input);
    const int64_t half = options.num_late_targets;
    const auto all = static_cast<int64_t>(golden.examples.front().log_probability.size());
    EXPECT_EQ(all, golden.model.has_encoder() ? half : 2 * half);
    for (const int64_t micro_batch : {1, 2, 3}) {
      options.micro_batch = micro_batch;
      const SourcePerplexity result = perplexity(engine, *windows, options);
      EXPECT_EQ(result.source, "all");
      EXPECT_EQ(result.windows, 3);
      expect_loss(result.second_half, golden_loss(golden.examples, half));
      expect_loss(result.all, golden_loss(golden.examples, all));
    }
  });
}

TEST_F(PerplexityTest, IsTheSameOnEveryRank) {
  for_each_case([&](const GoldenStep& golden, train::Engine& engine, const PerplexityOptions& options) {
    PerplexityOptions one_each = options;
    one_each.micro_batch = 1;
    const auto windows = source("all", golden, golden.examples);
    const SourcePerplexity result = perplexity(engine, *windows, one_each);
    double most[2] = {result.second_half.sum, static_cast<double>(result.second_half.count)};
    double least[2] = {most[0], most[1]};
    parallel::Communicator& world = mpi_.world();
    parallel::Request request = world.all_reduce(make_tensor(most, 2, 1), parallel::ReduceOp::max);
    world.wait(request, "test");
    request = world.all_reduce(make_tensor(least, 2, 1), parallel::ReduceOp::min);
    world.wait(request, "test");
    EXPECT_EQ(most[0], least[0]);
    EXPECT_EQ(most[1], least[1]);
  });
}

TEST_F(PerplexityTest, KeepsSourcesApartAndCountsTheFirstWindowsOnly) {
  for_each_case([&](const GoldenStep& golden, train::Engine& engine, PerplexityOptions options) {
    const std::span<const GoldenExample> examples(golden.examples);
    const int64_t half = options.num_late_targets;
    options.micro_batch = 2;
    const auto one = source("one", golden, examples.first(1)), two = source("two", golden, examples.last(2));
    expect_loss(perplexity(engine, *one, options).second_half, golden_loss(examples.first(1), half));
    const SourcePerplexity of_two = perplexity(engine, *two, options);
    EXPECT_EQ(of_two.source, "two");
    expect_loss(of_two.second_half, golden_loss(examples.last(2), half));
    options.max_windows = 1;
    const SourcePerplexity limited = perplexity(engine, *two, options);
    EXPECT_EQ(limited.windows, 1);
    expect_loss(limited.second_half, golden_loss(examples.subspan(1, 1), half));
    options.max_windows = 100;  // more than there are
    EXPECT_EQ(perplexity(engine, *two, options).windows, 2);
  });
}

// Behind a step weights are under way, and of the data ranks only one has a window.
TEST_F(PerplexityTest, OfFewerWindowsThanRanksBehindATrainingStep) {
  for_each_case([&](const GoldenStep& golden, train::Engine& engine, PerplexityOptions options) {
    const auto windows = source("all", golden, golden.examples);
    const auto batches = test::micro_batches({golden.examples[0].sample}, test::Form::one_micro_batch);
    options.micro_batch = 1;
    options.max_windows = 1;
    EXPECT_TRUE(engine.train_step(batches, 0.01).applied);
    const double at_once = perplexity(engine, *windows, options).all.sum;
    EXPECT_EQ(perplexity(engine, *windows, options).all.sum, at_once);
  });
}

TEST_F(PerplexityTest, LeavesATrainingStepAsItWas) {
  for_each_case([&](const GoldenStep& golden, train::Engine& engine, const PerplexityOptions& options) {
    const auto windows = source("all", golden, golden.examples);
    PerplexityOptions one_each = options;
    one_each.micro_batch = 1;
    const std::vector<data::Sample> samples = {golden.examples[0].sample};
    const auto batches = test::micro_batches(samples, test::Form::one_micro_batch);
    const double before = engine.gradients(batches, 0.0).gradient_norm;
    perplexity(engine, *windows, one_each);
    EXPECT_EQ(engine.gradients(batches, 0.0).gradient_norm, before);
  });
}

}  // namespace
}  // namespace red::eval

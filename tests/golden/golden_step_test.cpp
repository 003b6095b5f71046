// One batch through the model against float64: logits, log-probabilities, attention probabilities, loss,
// gradients. Every file of the golden folder, in every layout of the ranks at hand, whole and cut into
// micro-batches. Tolerances are of golden/README.md: fp32 arithmetic against float64.
#include <gtest/gtest.h>

#include "golden/golden_engine.hpp"

namespace red::test {
namespace {

constexpr double kLogits = 1e-5;       // absolute; |logits| is about 1, a hundred fp32 roundings
constexpr double kProbability = 1e-5;  // absolute, attention
constexpr double kLoss = 1e-6;         // relative
constexpr double kGradient =
    1e-5;  // relative to max(own norm, 1e-3 x global norm): some are zero in exact maths

// bf16 rounds matrices and activations by up to 2^-9 at every op. Tens of such errors add up at random in a
// gradient (measured: 3e-2), hundreds of tokens' average out in the loss (7e-4) and the norm (3e-3).
constexpr double kLossBf16 = 2e-3, kNormBf16 = 1e-2, kGradientBf16 = 6e-2;

struct Tolerance {
  double loss, norm, gradient;
  double floor;  ///< of the norm that a gradient's error is relative to, as a share of the global one
};
constexpr Tolerance kFp32{kLoss, kGradient, kGradient, 1e-3};
constexpr Tolerance kBf16{kLossBf16, kNormBf16, kGradientBf16, 1e-2};

class GoldenStepTest : public testing::Test {
 protected:
  parallel::MpiEnvironment& mpi() { return mpi_; }

  /// f(file, layout) for all of them, with a trace that names both.
  template <class F>
  void for_each_case(F f, DType dtype = DType::fp32, int virtual_stages = 1) {
    int num_cases = 0;
    for (const auto& path : golden_files("step")) {
      const GoldenStep golden = read_golden_step(path);
      for (const parallel::Layout& layout : layouts_for(mpi().size(), golden.model, virtual_stages)) {
        SCOPED_TRACE(fmt::format("{} on {}", golden.name, layout.to_string()));
        std::vector<data::Sample> samples;
        for (const GoldenExample& example : golden.examples) samples.push_back(example.sample);
        GoldenEngine engine(mpi(), layout, golden.model, golden.z_loss, {}, {samples}, golden.parameters,
                            dtype, virtual_stages);
        f(golden, samples, engine);
        ++num_cases;
      }
    }
    // An odd number of ranks may have no layout in which stages have several chunks.
    EXPECT_TRUE(num_cases > 0 || (virtual_stages > 1 && mpi().size() % 2 == 1)) << "nothing was compared";
  }

  void check_gradients(DType dtype, const std::vector<Form>& forms, const Tolerance& tolerance,
                       int virtual_stages = 1) {
    for_each_case(
        [&](const GoldenStep& golden, const std::vector<data::Sample>& samples, GoldenEngine& golden_engine) {
          for (const Form form : forms) {
            SCOPED_TRACE(fmt::format("form {}", static_cast<int>(form)));
            train::Engine& engine = golden_engine.engine();
            const auto batches = golden_engine.deal(samples, form);
            const train::StepResult result = engine.gradients(batches, 0.0);
            EXPECT_NEAR(result.loss / golden.loss, 1.0, tolerance.loss);
            EXPECT_EQ(result.targets, golden.num_targets);
            EXPECT_NEAR(result.gradient_norm / golden.gradient_norm, 1.0, tolerance.norm);
            const auto errors =
                golden_engine.errors(golden.gradients, 1.0 / static_cast<double>(golden.num_targets),
                                     tolerance.floor * golden.gradient_norm,
                                     [](const optim::ParameterShard& shard) { return shard.gradient; });
            for (const auto& [name, error] : errors)
              EXPECT_LT(error, tolerance.gradient) << "gradient of " << name;
          }
        },
        dtype, virtual_stages);
  }

 private:
  parallel::MpiEnvironment mpi_;
};

TEST_F(GoldenStepTest, LossAndGradients) {
  check_gradients(DType::fp32, {Form::one_micro_batch, Form::one_example_each, Form::from_padded_rows},
                  kFp32);
}

TEST_F(GoldenStepTest, LossAndGradientsInBf16) {
  check_gradients(DType::bf16, {Form::one_micro_batch, Form::one_example_each}, kBf16);
}

TEST_F(GoldenStepTest, LossAndGradientsWithInterleavedChunks) {
  check_gradients(DType::fp32, {Form::one_micro_batch, Form::one_example_each}, kFp32, 2);
}

TEST_F(GoldenStepTest, LogitsAndLogProbabilities) {
  for_each_case([](const GoldenStep& golden, const std::vector<data::Sample>&, GoldenEngine& golden_engine) {
    train::Engine& engine = golden_engine.engine();
    for (const GoldenExample& example : golden.examples) {
      const auto batch = micro_batches({example.sample}, Form::one_micro_batch);
      engine.hidden(batch.front());
      if (engine.stages().has_head()) {
        const DeviceArray<float> memory(std::vector<float>(example.logits.values.size()));
        engine.stages().last().logits(memory.tensor(example.logits.rows, example.logits.cols), 0);
        const std::vector<float> logits = memory.read();
        double worst = 0.0;
        for (std::size_t i = 0; i < logits.size(); ++i) {
          worst = std::max(worst, std::abs(logits[i] - example.logits.values[i]));
        }
        EXPECT_LT(worst, kLogits) << "logits of example " << example.sample.id;
      }
      const std::span<const float> got = engine.score(batch.front());
      EXPECT_EQ(got.size(), engine.stages().has_head() ? example.log_probability.size() : 0);
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_NEAR(got[i], example.log_probability[i], kLogits)
            << "example " << example.sample.id << " token " << i;
      }
    }
  });
}

/// "decoder.layers.3.cross_attention" -> kind and layer.
std::pair<model::AttentionKind, int64_t> block_of(const std::string& name) {
  const auto layer = std::stoll(name.substr(std::string("encoder.layers.").size()));
  if (name.ends_with("cross_attention")) return {model::AttentionKind::cross, layer};
  return {
      name.starts_with("encoder") ? model::AttentionKind::encoder_self : model::AttentionKind::decoder_self,
      layer};
}

TEST_F(GoldenStepTest, AttentionProbabilities) {
  for_each_case(
      [](const GoldenStep& golden, const std::vector<data::Sample>& samples, GoldenEngine& golden_engine) {
        train::Engine& engine = golden_engine.engine();
        // All examples in one micro-batch: the probe has to find each of them.
        const auto batches = micro_batches(samples, Form::one_micro_batch);
        engine.gradients(batches, 0.0);
        model::Stage& stage = engine.stages().last();
        const parallel::StagePlacement& here = stage.placement();
        int64_t rows_checked = 0;
        for (std::size_t sequence = 0; sequence < golden.examples.size(); ++sequence) {
          for (const auto& [name, expected] : golden.examples[sequence].attention) {
            const auto [kind, layer] = block_of(name);
            const bool encoder = kind == model::AttentionKind::encoder_self;
            if (layer < (encoder ? here.encoder_begin : here.decoder_begin) ||
                layer >= (encoder ? here.encoder_end : here.decoder_end)) {
              continue;
            }
            for (int64_t head = 0; head < expected.heads; ++head) {
              const DeviceArray<float> memory(std::vector<float>(expected.num_queries * expected.num_keys));
              if (!stage.attention_probabilities(memory.tensor(expected.num_queries, expected.num_keys),
                                                 engine.executor().slot_of(0), kind, layer,
                                                 static_cast<int64_t>(sequence), head, 0)) {
                continue;  // another tensor rank's
              }
              const std::vector<float> got = memory.read();
              double worst = 0.0;
              const double* e = expected.values.data() + head * expected.num_queries * expected.num_keys;
              for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - e[i]));
              EXPECT_LT(worst, kProbability) << name << " head " << head << " of example " << sequence;
              rows_checked += expected.num_queries;
            }
          }
        }
        EXPECT_GT(rows_checked, 0);
      });
}

}  // namespace
}  // namespace red::test

// The reader of golden files: what it must find in the project's own files, and that a missing or changed
// piece is an error that names it.
#include "support/golden_file.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "checkpoint/h5.hpp"

namespace red::test {
namespace {

double norm_of(const GoldenTensors& tensors) {
  double sum = 0;
  for (const auto& [name, tensor] : tensors)
    for (const double x : tensor.values) sum += x * x;
  return std::sqrt(sum);
}

/// A copy of a golden file that a test may damage; gone at the end.
class DamagedCopy {
 public:
  explicit DamagedCopy(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("golden-" + std::to_string(getpid()) + "-" + name)) {
    std::filesystem::copy_file(golden_dir() / name, path_, std::filesystem::copy_options::overwrite_existing);
    std::filesystem::permissions(path_, std::filesystem::perms::owner_all);
  }
  ~DamagedCopy() { std::filesystem::remove(path_); }

  const std::filesystem::path& path() const { return path_; }
  void remove(const std::string& dataset) const {
    const checkpoint::h5::File file(
        H5Fopen(path_.c_str(), H5F_ACC_RDWR, checkpoint::h5::file_access().get()));
    EXPECT_GE(H5Ldelete(file.get(), dataset.c_str(), H5P_DEFAULT), 0);
  }

 private:
  std::filesystem::path path_;
};

template <class F>
std::string message_of(const F& call) {
  try {
    call();
  } catch (const DataError& error) {
    return error.what();
  }
  return "no DataError";
}

TEST(GoldenFile, StepHoldsModelTensorsAndExamples) {
  const GoldenStep step = read_golden_step(golden_dir() / "red_ragged.h5");
  EXPECT_EQ(step.model.kind, model::Kind::red);
  EXPECT_EQ(step.model.d_model, 32);
  EXPECT_EQ(step.model.decoder_layers, 3);
  EXPECT_EQ(step.z_loss, 0.0);
  EXPECT_EQ(step.num_targets, 23);
  ASSERT_EQ(step.examples.size(), 4U);
  EXPECT_EQ(step.examples[1].sample.encoder_input.size(), 5U);
  EXPECT_EQ(step.examples[1].logits.rows, 13);
  EXPECT_EQ(step.examples[1].logits.cols, 67);
  EXPECT_EQ(step.examples[2].log_probability.size(), 1U);
  const GoldenAttention& cross = step.examples[3].attention.at("decoder.layers.1.cross_attention");
  EXPECT_EQ(cross.heads, 4);
  EXPECT_EQ(cross.num_queries, 16);
  EXPECT_EQ(cross.num_keys, 11);
  // The first query's probabilities; float64.
  EXPECT_NEAR(std::accumulate(cross.values.begin(), cross.values.begin() + 11, 0.0), 1.0, 1e-12);
  EXPECT_EQ(step.parameters.at("encoder.final_norm.gain").cols, 1);
  EXPECT_EQ(step.parameters.size(), step.gradients.size());
}

TEST(GoldenFile, GradientNormOfEveryStepIsTheNormOfItsGradients) {
  for (const auto& path : golden_files("step")) {
    const GoldenStep step = read_golden_step(path);
    // float64 sums of the same numbers in another order.
    EXPECT_NEAR(norm_of(step.gradients), step.gradient_norm, 1e-12 * step.gradient_norm) << path;
    int64_t targets = 0;
    double loss = 0;
    for (const GoldenExample& example : step.examples) {
      for (std::size_t t = 0; t < example.log_probability.size(); ++t) {
        if (!example.sample.loss_mask[t]) continue;
        ++targets;
        loss -= example.log_probability[t];
      }
    }
    EXPECT_EQ(targets, step.num_targets) << path;
    if (step.z_loss == 0) {
      EXPECT_NEAR(loss / static_cast<double>(targets), step.loss, 1e-12) << path;
    }
  }
}

TEST(GoldenFile, DocumentsAndPrefixAreRead) {
  const GoldenStep documents = read_golden_step(golden_dir() / "dec_documents.h5");
  EXPECT_EQ(documents.examples[0].sample.decoder_document.size(), 48U);
  EXPECT_TRUE(documents.examples[0].sample.encoder_document.empty());
  EXPECT_EQ(documents.model.attention_output_norm, model::AttentionOutputNorm::none);
  const GoldenStep biattn = read_golden_step(golden_dir() / "dec_biattn.h5");
  EXPECT_EQ(biattn.examples[0].sample.prefix, 19);
}

TEST(GoldenFile, TrajectoryHoldsRunAndRule) {
  const GoldenTrajectory run = read_golden_trajectory(golden_dir() / "red_trajectory_factored.h5");
  EXPECT_TRUE(run.optimizer.factored);
  EXPECT_EQ(run.optimizer.min_dim_to_factor, 32);
  EXPECT_EQ(run.optimizer.epsilon1, 1e-30);
  EXPECT_EQ(run.schedule.warmup_steps, 8);
  ASSERT_EQ(run.steps.size(), 40U);
  EXPECT_EQ(run.steps[39].size(), 4U);
  EXPECT_EQ(run.steps[39][3].id, 159U);
  EXPECT_EQ(run.steps[39][1].decoder_target.size(), 4U);
  // Linear warm-up: step 4 of 8 has half the peak.
  EXPECT_DOUBLE_EQ(run.learning_rate[3], 0.005);
  EXPECT_EQ(run.parameters.size(), run.final_parameters.size());
}

TEST(GoldenFile, AdafactorHoldsEveryMode) {
  const auto modes = read_golden_adafactor(golden_files("adafactor").at(0));
  ASSERT_EQ(modes.size(), 3U);
  const GoldenAdafactor& factored = modes.at("factored");
  EXPECT_EQ(factored.gradients.size(), 4U);
  EXPECT_EQ(factored.rates.size(), 4U);
  EXPECT_EQ(factored.state.at("matrix").at("v_col").rows, 144);
  EXPECT_EQ(factored.parameters.count(3), 0U);
  EXPECT_EQ(factored.parameters.at(4).at("narrow").cols, 150);
}

TEST(GoldenFile, ErrorsNameFileAndDataset) {
  const DamagedCopy copy("dec_ragged.h5");
  copy.remove("examples/2/logits");
  const std::string message = message_of([&] { read_golden_step(copy.path()); });
  EXPECT_NE(message.find("dec_ragged.h5"), std::string::npos) << message;
  EXPECT_NE(message.find("'examples/2/logits' is missing"), std::string::npos) << message;

  EXPECT_NE(message_of([] { read_golden_step(golden_dir() / "red_trajectory.h5"); }).find("not a 'step'"),
            std::string::npos);
  EXPECT_NE(message_of([] { read_golden_step("/nowhere/x.h5"); }).find("/nowhere/x.h5"), std::string::npos);
  EXPECT_NE(message_of([] { golden_files("nothing"); }).find("'nothing'"), std::string::npos);
}

}  // namespace
}  // namespace red::test

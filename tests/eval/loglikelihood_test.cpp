// Log-likelihoods of continuations in every layout against the float64 ones of golden files, and how texts
// are cut into context and continuation.
#include "eval/loglikelihood.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "base/error.hpp"
#include "golden/golden_engine.hpp"

namespace red::eval {
namespace {

using test::GoldenEngine;
using test::GoldenExample;
using test::GoldenStep;

/// The targets of a whole example, or, where the input's tokens see each other, those behind it.
Continuation request_of(const GoldenStep& golden, const GoldenExample& example, int64_t& scored) {
  const data::Sample& sample = example.sample;
  Continuation request;
  const auto begin = static_cast<std::ptrdiff_t>(std::max(sample.prefix, 1)) - 1;
  if (golden.model.has_encoder()) {
    request.context = sample.encoder_input;
  } else {
    request.context.assign(sample.decoder_input.begin(), sample.decoder_input.begin() + begin + 1);
  }
  request.tokens.assign(sample.decoder_target.begin() + begin, sample.decoder_target.end());
  scored = static_cast<int64_t>(request.tokens.size());
  return request;
}

class LoglikelihoodTest : public testing::Test {
 protected:
  parallel::MpiEnvironment mpi_;
  Stream stream_{1};
};

TEST_F(LoglikelihoodTest, AreThoseOfTheGoldenFiles) {
  int num_cases = 0;
  for (const auto& path : test::golden_files("step")) {
    const GoldenStep golden = test::read_golden_step(path);
    if (!golden.examples.front().sample.decoder_document.empty()) continue;
    std::vector<data::Sample> samples;
    std::vector<Continuation> requests;
    std::vector<double> expected;
    for (const GoldenExample& example : golden.examples) {
      samples.push_back(example.sample);
      int64_t scored = 0;
      requests.push_back(request_of(golden, example, scored));
      const auto& all = example.log_probability;
      expected.push_back(std::accumulate(all.end() - scored, all.end(), 0.0));
    }
    for (const parallel::Layout& layout : test::layouts_for(mpi_.size(), golden.model)) {
      SCOPED_TRACE(fmt::format("{} on {}", golden.name, layout.to_string()));
      GoldenEngine engine(mpi_, layout, golden.model, golden.z_loss, {}, {samples}, golden.parameters);
      LoglikelihoodOptions options;
      options.batch = 2;
      options.start_token = golden.examples.front().sample.decoder_input.front();
      options.positions = train::decoder_positions(golden.model);
      options.bidirectional_input = samples.front().prefix > 0;
      const auto got = loglikelihoods(engine.engine(), stream_, golden.model, requests, options);
      EXPECT_EQ(got.size(), requests.size());
      for (std::size_t i = 0; i < got.size() && i < expected.size(); ++i) {
        EXPECT_EQ(got[i].tokens, static_cast<int64_t>(requests[i].tokens.size()));
        EXPECT_NEAR(got[i].sum, expected[i], 1e-5 * static_cast<double>(got[i].tokens)) << i;  // fp32 logits
      }
      ++num_cases;
    }
  }
  EXPECT_GT(num_cases, 0);
}

/// A continuation of the likeliest tokens is greedy, and no longer when one of them changes.
TEST_F(LoglikelihoodTest, KnowsTheLikeliestTokens) {
  const GoldenStep golden = test::read_golden_step(test::golden_dir() / "red_pretrain.h5");
  std::vector<data::Sample> samples;
  std::vector<Continuation> requests;
  for (const GoldenExample& example : golden.examples) {
    samples.push_back(example.sample);
    const auto first = example.logits.values.begin();
    const auto likeliest = static_cast<int32_t>(std::max_element(first, first + example.logits.cols) - first);
    requests.push_back({example.sample.encoder_input, {likeliest}});
    requests.push_back(
        {example.sample.encoder_input, {(likeliest + 1) % static_cast<int32_t>(golden.model.vocab_size)}});
  }
  GoldenEngine engine(mpi_, {mpi_.size(), 1, 0, 1, false}, golden.model, golden.z_loss, {},
                      {samples, samples}, golden.parameters);
  LoglikelihoodOptions options;
  options.batch = 1;
  options.start_token = golden.examples.front().sample.decoder_input.front();
  const auto got = loglikelihoods(engine.engine(), stream_, golden.model, requests, options);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].is_greedy, i % 2 == 0) << i;
}

TEST_F(LoglikelihoodTest, WhiteSpaceIsPythons) {
  EXPECT_EQ(size_without_trailing_space(""), 0U);
  EXPECT_EQ(size_without_trailing_space(" \t\n"), 0U);
  EXPECT_EQ(size_without_trailing_space("a b \r\n"), 3U);
  EXPECT_EQ(size_without_trailing_space("a\u00a0\u3000\u2028\u0085\x1c"), 1U);
  EXPECT_EQ(size_without_trailing_space("a\u200b"), 4U);  // a zero-width space is none
  EXPECT_EQ(size_without_trailing_space("caf\u00e9"), 5U);
}

TEST_F(LoglikelihoodTest, LongOnesLoseTheirBeginning) {
  Continuation request{{1, 2, 3, 4, 5}, {6, 7}};
  limit_length(request, 4, false, "here");  // 3 4 5 6 are read, 7 is only predicted
  EXPECT_EQ(request.context, (std::vector<int32_t>{3, 4, 5}));
  limit_length(request, 2, true, "here");
  EXPECT_EQ(request.context, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(request.tokens, (std::vector<int32_t>{6, 7}));
  EXPECT_THROW(limit_length(request, 1, true, "here"), DataError);
}

}  // namespace
}  // namespace red::eval

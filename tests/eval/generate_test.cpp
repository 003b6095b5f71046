// Generation with golden models, in every layout of the ranks at hand. The yardstick for greedy choice is one
// forward pass over the whole continuation: every token must be the likeliest after those before it.
#include "eval/generate.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.hpp"
#include "golden/golden_engine.hpp"

namespace red::eval {
namespace {

/// Logits of a long and of a short pass differ by fp32 rounding; the two likeliest by far more.
constexpr double kLogits = 1e-5;
constexpr int64_t kMaxTokens = 6, kLongestPrompt = 20;
constexpr int32_t kStart = 0;

using Tokens = std::vector<int32_t>;

/// Prompts of several lengths, one of them the longest that fits.
std::vector<Tokens> prompts(int64_t vocabulary) {
  std::vector<Tokens> result;
  for (const int64_t length : {int64_t{6}, int64_t{1}, kLongestPrompt}) {
    Tokens& prompt = result.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      prompt.push_back(static_cast<int32_t>(philox(3, length, i)[0] % vocabulary));
    }
  }
  return result;
}

/// A prompt and its continuation as one sample: the tokens before `tokens[i]` are inputs 0 ... first + i.
data::Sample whole_sample(bool has_encoder, const Tokens& prompt, const Tokens& tokens) {
  data::Sample sample;
  sample.decoder_input = {kStart};
  Tokens& input = has_encoder ? sample.encoder_input : sample.decoder_input;
  input.insert(input.end(), prompt.begin(), prompt.end());
  sample.decoder_input.insert(sample.decoder_input.end(), tokens.begin(), tokens.end());
  sample.decoder_target.assign(sample.decoder_input.size(), 0);
  sample.loss_mask.assign(sample.decoder_input.size(), 1);
  return sample;
}

struct Case {
  model::ModelConfig model;
  train::Engine& engine;
  Stream& stream;
  std::vector<Tokens> prompts;
  GenerationConfig config;
  std::vector<Tokens> run() const { return generate(engine, stream, model, prompts, config); }
};

class GenerateTest : public testing::Test {
 protected:
  /// f(case) for a RedLLM and a DecLLM in every layout; room for three prompts, no more.
  template <class F>
  void for_each_case(F f) {
    for (const std::string name : {"red_pretrain", "dec_pretrain"}) {
      const test::GoldenStep golden = test::read_golden_step(test::golden_dir() / (name + ".h5"));
      const data::Sample largest =
          whole_sample(golden.model.has_encoder(), Tokens(kLongestPrompt, 0), Tokens(kMaxTokens - 1, 0));
      for (const parallel::Layout& layout : test::layouts_for(mpi_.size(), golden.model)) {
        SCOPED_TRACE(fmt::format("{} on {}", name, layout.to_string()));
        test::GoldenEngine engine(mpi_, layout, golden.model, 0.0, {}, {{largest, largest, largest}},
                                  golden.parameters);
        Stream stream(1);
        Case c{golden.model, engine.engine(), stream, prompts(golden.model.vocab_size), {}};
        c.config.max_tokens = kMaxTokens;
        c.config.start_token = kStart;
        f(c);
      }
    }
  }

  /// Every rank has what rank 0 has.
  void expect_same_on_all_ranks(const std::vector<Tokens>& written) {
    constexpr std::size_t room = 200;
    Tokens mine;
    for (const Tokens& tokens : written) {
      mine.push_back(static_cast<int32_t>(tokens.size()));
      mine.insert(mine.end(), tokens.begin(), tokens.end());
    }
    EXPECT_LE(mine.size(), room);
    mine.resize(room, -1);
    Tokens of_rank_0 = mine;
    parallel::Request request = mpi_.world().broadcast(make_tensor(of_rank_0.data(), room, 1), 0);
    mpi_.world().wait(request, "test");
    EXPECT_EQ(mine, of_rank_0);
  }

  parallel::MpiEnvironment mpi_;
};

/// How far a chosen token's logit is below the largest, the worst over a continuation; 0 without the head.
double worst_choice(const Case& c, const Tokens& prompt, const Tokens& tokens) {
  const data::Sample sample = whole_sample(c.model.has_encoder(), prompt, tokens);
  data::MicroBatch batch;
  data::pack({&sample, 1}, data::DecoderPositions::after_encoder, batch);
  c.engine.hidden(batch);
  if (!c.engine.stages().has_head()) return 0.0;
  const auto inputs = static_cast<int64_t>(sample.decoder_input.size()), vocabulary = c.model.vocab_size;
  std::vector<float> logits(inputs * vocabulary);
  c.engine.stages().last().logits(make_tensor(logits.data(), inputs, vocabulary), 0);
  const int64_t first = inputs - 1 - static_cast<int64_t>(tokens.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto row = logits.begin() + (first + static_cast<int64_t>(i)) * vocabulary;
    worst = std::max(worst, static_cast<double>(*std::max_element(row, row + vocabulary) - row[tokens[i]]));
  }
  return worst;
}

TEST_F(GenerateTest, GreedyIsTheArgmaxOfTheWholeForwardPass) {
  for_each_case([&](const Case& c) {
    const std::vector<Tokens> written = c.run();
    EXPECT_EQ(written.size(), c.prompts.size());
    for (std::size_t i = 0; i < written.size(); ++i) {
      EXPECT_EQ(written[i].size(), kMaxTokens);
      EXPECT_LT(worst_choice(c, c.prompts[i], written[i]), kLogits) << "prompt " << i;
    }
    EXPECT_NE(written[0], written[1]);  // the prompt matters
    expect_same_on_all_ranks(written);
  });
}

TEST_F(GenerateTest, APromptDoesNotSeeTheOthers) {
  for_each_case([&](Case& c) {
    c.config.sampling.temperature = 1.0;
    const std::vector<Tokens> together = c.run();
    c.prompts.resize(1);
    EXPECT_EQ(c.run().front(), together.front());
  });
}

TEST_F(GenerateTest, StopsBeforeAStopToken) {
  for_each_case([&](Case& c) {
    c.config.sampling.temperature = 2.0;  // many different tokens
    const std::vector<Tokens> free = c.run();
    const Tokens stops = {free[0][2], free[1][4]};
    c.config.stop_tokens = stops;
    std::vector<std::pair<std::size_t, int32_t>> calls;
    const std::vector<Tokens> stopped =
        generate(c.engine, c.stream, c.model, c.prompts, c.config,
                 [&](std::size_t prompt, int32_t token) { calls.emplace_back(prompt, token); });
    for (std::size_t i = 0; i < free.size(); ++i) {
      const auto end = std::find_first_of(free[i].begin(), free[i].end(), stops.begin(), stops.end());
      EXPECT_EQ(stopped[i], Tokens(free[i].begin(), end)) << "prompt " << i;
    }
    EXPECT_LE(stopped[0].size(), 2U);
    expect_same_on_all_ranks(stopped);
    std::vector<Tokens> told(free.size());
    for (const auto& [prompt, token] : calls) told[prompt].push_back(token);
    EXPECT_EQ(told, stopped);
  });
}

TEST_F(GenerateTest, AllStoppedAtOnceGiveNothing) {
  for_each_case([&](Case& c) {
    for (int32_t token = 0; token < c.model.vocab_size; ++token) c.config.stop_tokens.push_back(token);
    for (const Tokens& tokens : c.run()) EXPECT_EQ(tokens, Tokens{});
  });
}

TEST_F(GenerateTest, FewerTokensAreTheFirstOfMore) {
  for_each_case([&](Case& c) {
    c.config.sampling.temperature = 1.0;
    const std::vector<Tokens> many = c.run();
    c.config.max_tokens = 4;
    const std::vector<Tokens> few = c.run();
    for (std::size_t i = 0; i < few.size(); ++i)
      EXPECT_EQ(few[i], Tokens(many[i].begin(), many[i].begin() + 4));
  });
}

TEST_F(GenerateTest, SeedsRepeatAndDiffer) {
  for_each_case([&](Case& c) {
    c.config.sampling.temperature = 2.0;
    const std::vector<Tokens> first = c.run();
    EXPECT_EQ(c.run(), first);
    c.config.sampling.seed = 2;
    EXPECT_NE(c.run(), first);
  });
}

/// Whoever sizes the engine is told what does not fit, on every rank and before any message.
TEST_F(GenerateTest, MoreThanTheEngineHasRoomForIsRefused) {
  for_each_case([&](Case& c) {
    for (Tokens& prompt : c.prompts) prompt.assign(kLongestPrompt, 1);
    EXPECT_EQ(c.run().front().size(), kMaxTokens);
    c.prompts.front().push_back(1);
    EXPECT_THROW(c.run(), LogicError);
    c.prompts.front().pop_back();
    c.prompts.push_back({1});
    EXPECT_THROW(c.run(), LogicError);
  });
}

}  // namespace
}  // namespace red::eval

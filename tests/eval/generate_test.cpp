// Generation with golden models, in every layout of the ranks at hand, against forward passes over all
// tokens.
#include "eval/generate.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/philox.hpp"
#include "eval/uncached_generation.hpp"
#include "golden/golden_engine.hpp"
#include "support/count_allocations.hpp"

namespace red::eval {
namespace {

using test::Tokens;

/// fp32: rows of one and of many tokens add up in another order, in products and in attention.
constexpr double kLogits = 1e-5;
/// bf16: activations are rounded to 2^-9 some dozens of times, at other places where sums differ. Logits of
/// the golden models are within +-6.
constexpr double kLogitsBf16 = 0.1;
constexpr int64_t kMaxTokens = 6, kLongestPrompt = 20, kPrompts = 7;

/// Prompts of several lengths, two of them the longest that fit.
std::vector<Tokens> ragged_prompts(int64_t vocabulary) {
  std::vector<Tokens> result;
  for (const int64_t length :
       {int64_t{6}, int64_t{1}, kLongestPrompt, int64_t{2}, int64_t{13}, kLongestPrompt, int64_t{5}}) {
    const auto seed = static_cast<uint64_t>(3 + result.size());
    Tokens& prompt = result.emplace_back();
    for (int64_t i = 0; i < length; ++i)
      prompt.push_back(static_cast<int32_t>(philox(seed, length, i)[0] % vocabulary));
  }
  return result;
}

struct Case {
  model::ModelConfig model;
  train::Engine& engine;
  Stream& stream;
  std::vector<Tokens> prompts;
  GenerationConfig config;
  std::vector<Tokens> run() const { return generate(engine, stream, model, prompts, config).tokens; }
};

class GenerateTest : public testing::Test {
 protected:
  /// f(case) for a RedLLM, a DecLLM and one with BiAttn in every layout, with so many places in the cache.
  /// Passes over prompts have room for two of the longest prompts, not for all.
  template <class F>
  void for_each_case(int64_t places, F f, DType dtype = DType::fp32) {
    for (const std::string name : {"red_pretrain", "dec_pretrain", "BiAttn"}) {
      const bool bidirectional = name == "BiAttn";
      const test::GoldenStep golden =
          test::read_golden_step(test::golden_dir() / (bidirectional ? "dec_pretrain.h5" : name + ".h5"));
      GenerationConfig config;
      config.max_tokens = kMaxTokens;
      config.start_token = 0;
      config.bidirectional_input = bidirectional;
      const auto sample = [&](int64_t prompt, int64_t written) {
        return test::whole_sample(golden.model, config, Tokens(prompt, 0), Tokens(written, 0));
      };
      std::vector<data::Sample> capacity(kPrompts, sample(1, 0));
      capacity[0] = capacity[1] = sample(kLongestPrompt, kMaxTokens - 1);
      const GenerationRoom room{places, kLongestPrompt, kMaxTokens};
      for (const parallel::Layout& layout : test::layouts_for(mpi_.size(), golden.model)) {
        SCOPED_TRACE(fmt::format("{} on {}", name, layout.to_string()));
        test::GoldenEngine engine(mpi_, layout, golden.model, 0.0, {}, {capacity}, golden.parameters, dtype,
                                  1, cache_for(golden.model, room));
        Stream stream(1);
        Case c{golden.model, engine.engine(), stream, ragged_prompts(golden.model.vocab_size), config};
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

  static void expect_as_without_cache(const Case& c) {
    const std::vector<Tokens> written = c.run();
    EXPECT_EQ(written.size(), c.prompts.size());
    for (std::size_t i = 0; i < written.size(); ++i) {
      EXPECT_EQ(written[i], test::generate_uncached(c.engine, c.model, c.config, c.prompts[i], i))
          << "prompt " << i;
    }
  }

  parallel::MpiEnvironment mpi_;
};

TEST_F(GenerateTest, TokensAreThoseWithoutACache) {
  for (const int64_t places : {1, 3, 7, 9}) {  // the last: more than prompts
    for_each_case(places, [&](Case& c) {
      expect_as_without_cache(c);
      const std::vector<Tokens> greedy = c.run();
      EXPECT_EQ(greedy.front().size(), kMaxTokens);
      EXPECT_NE(greedy[0], greedy[1]);  // the prompt matters
      expect_same_on_all_ranks(greedy);
      c.config.sampling = {.temperature = 1.3, .top_k = 20, .top_p = 0.95, .seed = 4};
      expect_as_without_cache(c);
      c.config.sampling = {.temperature = 0.9};
      expect_as_without_cache(c);
      EXPECT_NE(c.run(), greedy);
    });
  }
}

/// Whatever is sampled goes through the cache: tokens of another choice as well.
void expect_logits(const Case& c, double tolerance) {
  const Tokens written = {5, 11, 2, 17, 3};
  const std::vector<int32_t> places = {2, 0, 1};
  const std::vector<Tokens> prompts(c.prompts.begin(), c.prompts.begin() + 3);
  const int64_t vocabulary = c.model.vocab_size;
  const bool has_head = c.engine.stages().has_head();
  std::vector<std::vector<float>> expected;
  std::vector<data::Sample> samples;
  for (const Tokens& prompt : prompts) {
    expected.push_back(test::whole_logits(c.engine, c.model, c.config,
                                          test::whole_sample(c.model, c.config, prompt, written)));
    samples.push_back(test::whole_sample(c.model, c.config, prompt, {}));
  }
  std::vector<float> got(3 * static_cast<std::size_t>(vocabulary));
  double worst = 0.0;
  const auto compare = [&](std::size_t num_written) {
    if (!has_head) return;
    c.engine.stages().last().last_logits(make_tensor(got.data(), 3, vocabulary));
    for (std::size_t i = 0; i < 3; ++i) {
      const std::size_t row = expected[i].size() / vocabulary - 1 - written.size() + num_written;
      for (int64_t j = 0; j < vocabulary; ++j) {
        const double distance = std::abs(got[i * vocabulary + j] - expected[i][row * vocabulary + j]);
        worst = std::max(worst, std::isnan(distance) ? INFINITY : distance);
      }
    }
  };
  data::MicroBatch batch, step;
  data::pack(samples, c.config.positions, batch);
  c.engine.prefill(batch, places);
  compare(0);
  for (std::size_t t = 0; t < written.size(); ++t) {
    step.decoder = {};
    step.decoder.offsets = {0};
    step.sample_ids.assign(3, 0);
    for (std::size_t i = 0; i < 3; ++i) {
      const auto first = static_cast<int32_t>(prompts[i].size());
      step.decoder.ids.push_back(written[t]);
      step.decoder.positions.push_back(first + 1 + static_cast<int32_t>(t));
      step.decoder.offsets.push_back(static_cast<int32_t>(i) + 1);
    }
    c.engine.decode(step, places);
    compare(t + 1);
  }
  EXPECT_LT(worst, tolerance);
  // Another path, not the same twice. Rounding to bf16 may hide all that differs.
  if (c.engine.dtype() == DType::fp32) {
    EXPECT_EQ(worst > 0.0, has_head);
  }
}

/// All three prompts in one pass: capacity for the third, the longest, and the others.
TEST_F(GenerateTest, LogitsAreThoseWithoutACache) {
  for_each_case(3, [&](Case& c) { expect_logits(c, kLogits); });
}

TEST_F(GenerateTest, Bf16LogitsAreThoseWithoutACache) {
  for_each_case(
      3, [&](Case& c) { expect_logits(c, kLogitsBf16); }, DType::bf16);
}

TEST_F(GenerateTest, APromptDoesNotSeeTheOthers) {
  for_each_case(7, [&](Case& c) {
    c.config.sampling.temperature = 1.0;
    const std::vector<Tokens> together = c.run();
    c.prompts.resize(1);
    EXPECT_EQ(c.run().front(), together.front());
  });
}

TEST_F(GenerateTest, StopsBeforeAStopToken) {
  for_each_case(3, [&](Case& c) {
    c.config.sampling.temperature = 2.0;  // many different tokens
    const std::vector<Tokens> free = c.run();
    const Tokens stops = {free[0][2], free[1][4], free[2][0]};
    c.config.stop_tokens = stops;
    const std::vector<Tokens> stopped = c.run();
    for (std::size_t i = 0; i < free.size(); ++i) {
      const auto end = std::find_first_of(free[i].begin(), free[i].end(), stops.begin(), stops.end());
      EXPECT_EQ(stopped[i], Tokens(free[i].begin(), end)) << "prompt " << i;
    }
    EXPECT_LE(stopped[0].size(), 2U);
    EXPECT_EQ(stopped[2].size(), 0U);
    expect_same_on_all_ranks(stopped);
    for (int32_t token = 0; token < c.model.vocab_size; ++token) c.config.stop_tokens.push_back(token);
    for (const Tokens& tokens : c.run()) EXPECT_EQ(tokens, Tokens{});
  });
}

TEST_F(GenerateTest, FewerTokensAreTheFirstOfMore) {
  for_each_case(3, [&](Case& c) {
    c.config.sampling.temperature = 1.0;
    const std::vector<Tokens> many = c.run();
    for (const int64_t count : {1, 4}) {
      c.config.max_tokens = count;
      const std::vector<Tokens> few = c.run();
      for (std::size_t i = 0; i < few.size(); ++i)
        EXPECT_EQ(few[i], Tokens(many[i].begin(), many[i].begin() + count));
    }
  });
}

TEST_F(GenerateTest, SeedsRepeatAndDiffer) {
  for_each_case(3, [&](Case& c) {
    c.config.sampling.temperature = 2.0;
    const std::vector<Tokens> first = c.run();
    EXPECT_EQ(c.run(), first);
    c.config.sampling.seed = 2;
    EXPECT_NE(c.run(), first);
  });
}

TEST_F(GenerateTest, CountsTokensAndTime) {
  for_each_case(3, [&](Case& c) {
    const Generation result = generate(c.engine, c.stream, c.model, c.prompts, c.config);
    EXPECT_EQ(result.prompt_tokens, 6 + 1 + 20 + 2 + 13 + 20 + 5);
    EXPECT_EQ(result.decoded_tokens, kPrompts * (kMaxTokens - 1));
    EXPECT_GT(result.prefill_s, 0.0);
    EXPECT_GT(result.decode_s, 0.0);
    EXPECT_EQ(generate(c.engine, c.stream, c.model, {}, c.config).tokens.size(), 0U);
  });
}

/// Twice as many steps, not one allocation more.
TEST_F(GenerateTest, ATokenAllocatesNothing) {
  for_each_case(7, [&](Case& c) {
    const auto allocations = [&](int64_t max_tokens) {
      c.config.max_tokens = max_tokens;
      const int64_t before = test::num_allocations();
      const std::size_t buffers = num_buffers_made();
      c.run();
      return std::pair(test::num_allocations() - before, num_buffers_made() - buffers);
    };
    allocations(kMaxTokens);  // programs and requests are made once
    EXPECT_EQ(allocations(kMaxTokens), allocations(kMaxTokens / 2));
  });
}

/// Whoever sizes the engine is told what does not fit, on every rank and before any message.
TEST_F(GenerateTest, RefusesWhatItCannotDo) {
  for_each_case(3, [&](Case& c) {
    const auto refuses = [&](auto change, const std::string& words) {
      Case bad = c;
      change(bad);
      try {
        bad.run();
        ADD_FAILURE() << words;
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      }
    };
    refuses([](Case& bad) { bad.prompts[2].push_back(1); }, "prompt 2: 21 tokens and 6 new ones in a cache");
    refuses([](Case& bad) { ++bad.config.max_tokens; }, "tokens and 7 new ones in a cache");
    refuses([](Case& bad) { bad.prompts[4].clear(); }, "prompt 4 is empty");
    refuses([](Case& bad) { bad.config.max_tokens = 0; }, "0 new tokens");
    refuses([](Case& bad) { bad.config.sampling.top_p = 0.0; }, "top-p 0: above 0, at most 1");
    refuses([](Case& bad) { bad.config.sampling.temperature = -1.0; }, "temperature -1: 0");
    refuses([](Case& bad) { bad.config.sampling.top_k = -2; }, "top-k -2: 0");
  });
}

TEST_F(GenerateTest, LogitsThatAreNotFiniteAreAnError) {
  if (mpi_.size() > 1) GTEST_SKIP() << "the other ranks would wait; the program's abort channel ends them";
  for_each_case(3, [&](Case& c) {
    c.engine.parameters().weight("decoder.final_norm.gain").value.as<float>()[0] = NAN;
    EXPECT_THROW(c.run(), DataError);
  });
}

}  // namespace
}  // namespace red::eval

// Continuations. A RedLLM reads the prompt in its encoder and writes in its decoder, whose positions go on
// where the prompt ends; a DecLLM goes on behind the prompt. Prompts go forward once, whole; then each token
// is a pass over one row per sequence, with keys and values of everything before it in a cache
// (model/kv_cache).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "eval/sampling.hpp"
#include "train/run_options.hpp"

namespace red::eval {

struct GenerationConfig {
  int64_t max_tokens = 64;  ///< new ones, per prompt
  SamplingConfig sampling;
  int32_t start_token = 1;           ///< first decoder input
  std::vector<int32_t> stop_tokens;  ///< end a continuation; not part of it
  data::DecoderPositions positions = data::DecoderPositions::after_encoder;
  bool bidirectional_input = false;  ///< DecLLM with BiAttn: start slot and prompt see each other
};

struct Generation {
  std::vector<std::vector<int32_t>> tokens;  ///< new ones of each prompt; fewer than max_tokens: it stopped
  int64_t prompt_tokens = 0;                 ///< of all prompts
  int64_t decoded_tokens = 0;  ///< new ones but the first of each prompt, which come with the prompt's pass
  double prefill_s = 0.0;      ///< seconds for the prompts, of the slowest rank
  double decode_s = 0.0;       ///< seconds for the tokens behind the first, likewise
};

/// What an engine is to have room for.
struct GenerationRoom {
  int64_t sequences = 1;       ///< at a time, of each data rank
  int64_t longest_prompt = 1;  ///< tokens
  int64_t max_tokens = 1;      ///< new ones of a prompt
};

model::CacheShape cache_for(const model::ModelConfig& model, const GenerationRoom& room);

/// An engine for generation: parameters, the cache, and activations of one pass over prompts. That has about
/// kPrefillTokens tokens; longer prompts have a pass of their own.
train::EngineOptions generation_options(const config::RunConfig& config, const GenerationRoom& room);
inline constexpr int64_t kPrefillTokens = 4096;

/// New tokens of each prompt, the same on every rank. Collective. Data ranks share the prompts; each
/// generates as many at a time as its engine's cache has places, and takes the next ones when all of these
/// are done. A token is a function of (model, prompt, its index among the prompts, config), to rounding:
/// layout and places do not matter. Throws ConfigError for impossible sampling, LogicError for an empty
/// prompt or one that the cache has no room for, DataError for logits that are not finite.
Generation generate(train::Engine& engine, Stream& stream, const model::ModelConfig& model,
                    std::span<const std::vector<int32_t>> prompts, const GenerationConfig& config);

}  // namespace red::eval

// Continuations. A RedLLM reads the prompt in its encoder and writes in its decoder, whose positions go on
// where the prompt ends; a DecLLM goes on behind the prompt. Every token is one forward pass over all tokens
// so far: right, and the yardstick for a cache, not fast.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "eval/sampling.hpp"
#include "train/engine.hpp"

namespace red::eval {

struct GenerationConfig {
  int64_t max_tokens = 64;  ///< new ones, per prompt
  SamplingConfig sampling;
  int32_t start_token = 1;           ///< first decoder input
  std::vector<int32_t> stop_tokens;  ///< end a continuation; not part of it
  data::DecoderPositions positions = data::DecoderPositions::after_encoder;
};

/// New tokens for each prompt, the same on every rank. Collective. The engine's capacity must hold all
/// prompts together with max_tokens each. on_token(prompt, token), optional, is called as they come.
std::vector<std::vector<int32_t>> generate(train::Engine& engine, Stream& stream,
                                           const model::ModelConfig& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerationConfig& config,
                                           const std::function<void(std::size_t, int32_t)>& on_token = {});

}  // namespace red::eval

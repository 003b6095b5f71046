// The yardstick for a cache: every token out of one forward pass over all tokens before it.
#pragma once

#include <algorithm>

#include "eval/generate.hpp"

namespace red::test {

using Tokens = std::vector<int32_t>;

/// A prompt and what has been written behind it, as one sample; every decoder position is a target.
inline data::Sample whole_sample(const model::ModelConfig& model, const eval::GenerationConfig& config,
                                 const Tokens& prompt, const Tokens& written) {
  data::Sample sample;
  sample.decoder_input = {config.start_token};
  Tokens& input = model.has_encoder() ? sample.encoder_input : sample.decoder_input;
  input.insert(input.end(), prompt.begin(), prompt.end());
  if (config.bidirectional_input) sample.prefix = static_cast<int32_t>(sample.decoder_input.size());
  sample.decoder_input.insert(sample.decoder_input.end(), written.begin(), written.end());
  sample.decoder_target.assign(sample.decoder_input.size(), 0);
  sample.loss_mask.assign(sample.decoder_input.size(), 1);
  return sample;
}

/// Logits (decoder tokens, V) of a sample where the head is; empty elsewhere. Collective.
inline std::vector<float> whole_logits(train::Engine& engine, const model::ModelConfig& model,
                                       const eval::GenerationConfig& config, const data::Sample& sample) {
  data::MicroBatch batch;
  data::pack({&sample, 1}, config.positions, batch);
  engine.hidden(batch);
  if (!engine.stages().has_head()) return {};
  const auto tokens = static_cast<int64_t>(sample.decoder_input.size());
  std::vector<float> logits(static_cast<std::size_t>(tokens * model.vocab_size));
  engine.stages().last().logits(make_tensor(logits.data(), tokens, model.vocab_size), 0);
  return logits;
}

/// What eval::generate gives, of one prompt. Every pipeline generates it. Collective.
inline Tokens generate_uncached(train::Engine& engine, const model::ModelConfig& model,
                                const eval::GenerationConfig& config, const Tokens& prompt,
                                std::size_t index) {
  const parallel::Mesh& mesh = engine.mesh();
  eval::Sampler sampler(config.sampling);
  Tokens written;
  while (static_cast<int64_t>(written.size()) < config.max_tokens) {
    const std::vector<float> logits =
        whole_logits(engine, model, config, whole_sample(model, config, prompt, written));
    int32_t token = 0;
    if (!logits.empty())
      token = sampler.pick(std::span(logits).last(model.vocab_size), index, written.size());
    parallel::Request request =
        mesh.pipeline().broadcast(make_tensor(&token, 1, 1), mesh.layout().num_stages() - 1);
    mesh.pipeline().wait(request, "test");
    const auto& stop = config.stop_tokens;
    if (std::find(stop.begin(), stop.end(), token) != stop.end()) break;
    written.push_back(token);
  }
  return written;
}

}  // namespace red::test

#include "eval/generate.hpp"

#include <algorithm>

namespace red::eval {
namespace {

/// A prompt and what has been written so far, as a sample without targets.
void fill_sample(const model::ModelConfig& model, const GenerationConfig& config,
                 const std::vector<int32_t>& prompt, const std::vector<int32_t>& written,
                 data::Sample& sample) {
  sample.clear();
  sample.decoder_input.push_back(config.start_token);
  if (model.has_encoder()) {
    sample.encoder_input = prompt;
  } else {
    sample.decoder_input.insert(sample.decoder_input.end(), prompt.begin(), prompt.end());
  }
  sample.decoder_input.insert(sample.decoder_input.end(), written.begin(), written.end());
  sample.decoder_target.assign(sample.decoder_input.size(), 0);
  sample.loss_mask.assign(sample.decoder_input.size(), 0);
}

}  // namespace

std::vector<std::vector<int32_t>> generate(train::Engine& engine, Stream& stream,
                                           const model::ModelConfig& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerationConfig& config,
                                           const std::function<void(std::size_t, int32_t)>& on_token) {
  const parallel::Mesh& mesh = engine.mesh();
  const int speaker = parallel::rank_of(mesh.layout(), {mesh.layout().num_stages() - 1, 0, 0});
  Sampler sampler(config.sampling);
  Buffer logits_memory(static_cast<std::size_t>(model.vocab_size) * sizeof(float));
  const Tensor device_logits =
      make_tensor(reinterpret_cast<float*>(logits_memory.data()), 1, model.vocab_size);
  std::vector<float> logits(model.vocab_size);
  std::vector<std::vector<int32_t>> written(prompts.size());
  std::vector<std::size_t> open;  // prompts that go on
  for (std::size_t i = 0; i < prompts.size(); ++i) open.push_back(i);
  std::vector<data::Sample> samples;
  data::MicroBatch batch;
  std::vector<int32_t> tokens;
  for (int64_t position = 0; position < config.max_tokens && !open.empty(); ++position) {
    samples.resize(open.size());
    for (std::size_t i = 0; i < open.size(); ++i)
      fill_sample(model, config, prompts[open[i]], written[open[i]], samples[i]);
    data::pack(samples, config.positions, batch);
    engine.hidden(batch);
    tokens.assign(open.size(), 0);
    if (mesh.is_last_stage() && mesh.at().data == 0) {
      for (std::size_t i = 0; i < open.size(); ++i) {
        engine.stages().last().logits(device_logits, batch.decoder.offsets[i + 1] - 1);
        copy_to_host(stream, logits.data(), device_logits.data, logits.size() * sizeof(float));
        stream.synchronize();
        tokens[i] = sampler.pick(logits, open[i], static_cast<uint64_t>(position));
      }
    }
    parallel::Request request =
        mesh.world().broadcast(make_tensor(tokens.data(), static_cast<int64_t>(tokens.size()), 1), speaker);
    mesh.world().wait(request, "broadcast of generated tokens");
    std::vector<std::size_t> still_open;
    for (std::size_t i = 0; i < open.size(); ++i) {
      const auto& stop = config.stop_tokens;
      if (std::find(stop.begin(), stop.end(), tokens[i]) != stop.end()) continue;
      written[open[i]].push_back(tokens[i]);
      if (on_token) on_token(open[i], tokens[i]);
      still_open.push_back(open[i]);
    }
    open = still_open;
  }
  return written;
}

}  // namespace red::eval

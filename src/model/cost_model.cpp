// The formula of docs/flops.md.
#include "model/cost_model.hpp"

#include <algorithm>
#include <span>

#include "base/check.hpp"

namespace red::model {
namespace {

/// Pairs of a causal self-attention over n tokens whose first `prefix` see each other.
int64_t causal_pairs(int64_t n, int64_t prefix) {
  const int64_t p = std::clamp<int64_t>(prefix, 0, n);
  return n * (n + 1) / 2 + p * (p - 1) / 2;
}

/// Tokens of one sequence that belong to one document: documents never decrease, so they are runs.
struct Run {
  int32_t document = 0;
  int64_t begin = 0, end = 0;  // within the sequence
  int64_t length() const { return end - begin; }
};

/// The run that begins at `begin`; an empty list of documents is one document.
Run run_at(std::span<const int32_t> documents, int64_t begin, int64_t length) {
  if (documents.empty()) return {.document = 0, .begin = begin, .end = length};
  const int32_t document = documents[static_cast<std::size_t>(begin)];
  int64_t end = begin + 1;
  while (end < length && documents[static_cast<std::size_t>(end)] == document) ++end;
  return {.document = document, .begin = begin, .end = end};
}

/// One sequence of a packed side.
struct Sequence {
  int64_t length = 0;
  std::span<const int32_t> documents;
};

Sequence sequence_of(const data::PackedSequences& side, std::size_t index) {
  if (side.offsets.empty()) return {};
  const auto begin = static_cast<std::size_t>(side.offsets[index]);
  const auto end = static_cast<std::size_t>(side.offsets[index + 1]);
  std::span<const int32_t> documents;
  if (!side.documents.empty()) documents = std::span(side.documents).subspan(begin, end - begin);
  return {.length = static_cast<int64_t>(end - begin), .documents = documents};
}

Work visible_work(const Sequence& encoder, const Sequence& decoder, int64_t prefix) {
  Work work{.encoder_tokens = encoder.length, .decoder_tokens = decoder.length};
  for (int64_t at = 0; at < encoder.length;) {
    const Run run = run_at(encoder.documents, at, encoder.length);
    work.encoder_pairs += run.length() * run.length();
    at = run.end;
  }
  int64_t encoder_at = 0;  // both sides' documents ascend
  for (int64_t at = 0; at < decoder.length;) {
    const Run run = run_at(decoder.documents, at, decoder.length);
    work.decoder_pairs += causal_pairs(run.length(), prefix - run.begin);
    while (encoder_at < encoder.length) {
      const Run source = run_at(encoder.documents, encoder_at, encoder.length);
      if (source.document > run.document) break;
      if (source.document == run.document) work.cross_pairs += run.length() * source.length();
      encoder_at = source.end;
    }
    at = run.end;
  }
  return work;
}

/// Forward FLOPs of one layer of each kind.
struct LayerFlops {
  double encoder = 0.0, decoder = 0.0;
};

LayerFlops layer_flops(const ModelConfig& config, const Work& work) {
  const auto d = static_cast<double>(config.d_model), f = static_cast<double>(config.d_ff);
  const auto a = static_cast<double>(config.attention_width());
  const auto source = static_cast<double>(work.encoder_tokens),
             target = static_cast<double>(work.decoder_tokens);
  const double per_token = 8 * d * a + 6 * d * f;  // query, key, value, output; gate, up, down
  LayerFlops flops;
  flops.decoder = target * per_token + 4 * a * static_cast<double>(work.decoder_pairs);
  if (config.has_encoder()) {
    flops.encoder = source * per_token + 4 * a * static_cast<double>(work.encoder_pairs);
    flops.decoder += 4 * d * a * (target + source) + 4 * a * static_cast<double>(work.cross_pairs);
  }
  return flops;
}

double head_flops(const ModelConfig& config, const Work& work) {
  return 2.0 * static_cast<double>(work.decoder_tokens) * static_cast<double>(config.d_model) *
         static_cast<double>(config.vocab_size);
}

}  // namespace

Work& Work::operator+=(const Work& other) {
  encoder_tokens += other.encoder_tokens;
  decoder_tokens += other.decoder_tokens;
  encoder_pairs += other.encoder_pairs;
  decoder_pairs += other.decoder_pairs;
  cross_pairs += other.cross_pairs;
  return *this;
}

Work work_of(int64_t encoder_length, int64_t decoder_length, int64_t prefix, AttentionCount count) {
  RED_CHECK(encoder_length >= 0 && decoder_length >= 0, "lengths {} {}", encoder_length, decoder_length);
  const bool full = count == AttentionCount::full;
  return {.encoder_tokens = encoder_length,
          .decoder_tokens = decoder_length,
          .encoder_pairs = encoder_length * encoder_length,
          .decoder_pairs = full ? decoder_length * decoder_length : causal_pairs(decoder_length, prefix),
          .cross_pairs = encoder_length * decoder_length};
}

Work work_of(const data::MicroBatch& batch, AttentionCount count) {
  Work work;
  for (std::size_t i = 0; i < static_cast<std::size_t>(batch.num_sequences()); ++i) {
    const Sequence encoder = sequence_of(batch.encoder, i), decoder = sequence_of(batch.decoder, i);
    if (count == AttentionCount::full) {
      work += work_of(encoder.length, decoder.length, 0, count);
    } else {
      work += visible_work(encoder, decoder, batch.prefixes.empty() ? 0 : batch.prefixes[i]);
    }
  }
  return work;
}

Flops forward_flops(const ModelConfig& config, const Work& work) {
  const LayerFlops layer = layer_flops(config, work);
  return {.encoder_layers = layer.encoder * static_cast<double>(config.encoder_layers),
          .decoder_layers = layer.decoder * static_cast<double>(config.decoder_layers),
          .head = head_flops(config, work)};
}

parallel::LayerCosts layer_costs(const ModelConfig& config, const Work& work) {
  const LayerFlops layer = layer_flops(config, work);
  return {.encoder_layer = layer.encoder, .decoder_layer = layer.decoder, .head = head_flops(config, work)};
}

}  // namespace red::model

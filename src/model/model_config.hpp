// What a model is: section [model]. Values the paper leaves open are configuration, never constants in code;
// their defaults are the recipe's (docs/numerics.md has the table).
#pragma once

#include <cstdint>
#include <string>

namespace red::model {

enum class Kind { red, dec };  ///< encoder-decoder, decoder-only

/// Where a RedLLM normalises attention's result (parameter-free).
enum class AttentionOutputNorm {
  none,
  head,      ///< per head, before concatenation (the recipe for RedLLM)
  concat,    ///< over all heads, before the output matrix
  after_wo,  ///< over the model width, after the output matrix
};

struct ModelConfig {
  std::string name = "custom";
  Kind kind = Kind::red;
  int64_t vocab_size = 32768;  ///< V
  int64_t d_model = 0;         ///< d
  int64_t d_ff = 0;            ///< f
  int64_t num_heads = 0;       ///< h
  int64_t head_dim = 128;      ///< d_h, even
  int64_t encoder_layers = 0;
  int64_t decoder_layers = 0;
  double rope_base = 10000.0;
  double norm_epsilon = 1e-6;
  AttentionOutputNorm attention_output_norm = AttentionOutputNorm::head;  ///< of a RedLLM; a DecLLM has none
  bool continuous_positions = true;  ///< decoder positions begin after the sample's encoder length
  uint64_t init_seed = 1;

  bool has_encoder() const { return kind == Kind::red; }
  int64_t attention_width() const { return num_heads * head_dim; }
};

/// Throws ConfigError naming the key ("model.d_model = 0: ...") for impossible values.
void validate(const ModelConfig& config);

}  // namespace red::model

// Checks of a model's description. Each message names the key as the user wrote it, says what the value must
// be and, where it is not obvious, why.
#include "model/model_config.hpp"

#include <cmath>
#include <limits>
#include <string_view>

#include "base/error.hpp"

namespace red::model {
namespace {

// Widths above a million are typing errors, and below it every product of two of them fits 64 bits by far.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 4096;

void check_range(std::string_view key, int64_t value, int64_t least, int64_t most, std::string_view meaning) {
  if (value < least || value > most) {
    throw ConfigError("model.{} = {}: {} must lie between {} and {}", key, value, meaning, least, most);
  }
}

void check_layers(const ModelConfig& config) {
  check_range("decoder_layers", config.decoder_layers, 1, kMaxLayers, "the number of decoder layers");
  if (config.has_encoder()) {
    check_range("encoder_layers", config.encoder_layers, 1, kMaxLayers,
                "the number of encoder layers of a RedLLM (model.kind = red)");
  } else if (config.encoder_layers != 0) {
    throw ConfigError(
        "model.encoder_layers = {}: a DecLLM (model.kind = dec) has no encoder; set it to 0 or leave it out, "
        "or set "
        "model.kind = red",
        config.encoder_layers);
  }
}

}  // namespace

void validate(const ModelConfig& config) {
  check_range("vocab_size", config.vocab_size, 1, std::numeric_limits<int32_t>::max(),
              "the number of token ids (int32)");
  check_range("d_model", config.d_model, 1, kMaxWidth, "the model's width");
  check_range("d_ff", config.d_ff, 1, kMaxWidth, "the width of the feed-forward layers");
  check_range("num_heads", config.num_heads, 1, kMaxWidth, "the number of attention heads");
  check_range("head_dim", config.head_dim, 2, kMaxWidth, "the width of an attention head");
  if (config.head_dim % 2 != 0) {
    throw ConfigError(
        "model.head_dim = {}: must be even, because rotary positions turn pairs of elements; try {}",
        config.head_dim, config.head_dim + 1);
  }
  if (config.attention_width() > kMaxWidth) {
    throw ConfigError(
        "model.num_heads = {}: {} heads of model.head_dim = {} are {} wide together; at most {} is possible",
        config.num_heads, config.num_heads, config.head_dim, config.attention_width(), kMaxWidth);
  }
  check_layers(config);
  if (!std::isfinite(config.rope_base) || config.rope_base < 1.0) {
    throw ConfigError("model.rope_base = {}: must be a finite number of at least 1 (the recipe's is 10000)",
                      config.rope_base);
  }
  if (!(config.norm_epsilon > 0.0 && config.norm_epsilon < 1.0)) {
    throw ConfigError(
        "model.norm_epsilon = {}: must lie between 0 and 1, both excluded (the recipe's is 1e-6); 0 would "
        "divide a "
        "zero vector by zero",
        config.norm_epsilon);
  }
}

}  // namespace red::model

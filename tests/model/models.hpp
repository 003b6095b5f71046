// The ten models of the paper, for tests that must hold for real sizes.
#pragma once

#include <array>
#include <cstdint>

#include "model/model_config.hpp"

namespace red::model {

struct PaperSize {
  const char* name;
  int64_t d, f, heads, decoder_only_layers, encoder_decoder_layers;
  const char* dec_parameters;  // as the paper's table prints them, in 10^9
  const char* red_parameters;
};

inline constexpr std::array<PaperSize, 5> kPaperSizes = {{
    {"150M", 1024, 4096, 8, 8, 3, "0.168", "0.147"},
    {"1B", 2048, 8192, 16, 16, 7, "1.141", "1.124"},
    {"2B", 2560, 10240, 20, 20, 9, "2.181", "2.207"},
    {"4B", 3072, 12288, 24, 24, 10, "3.725", "3.498"},
    {"8B", 4096, 16384, 32, 32, 14, "8.724", "8.590"},
}};

inline ModelConfig paper_model(const PaperSize& size, Kind kind) {
  ModelConfig config;
  config.name = size.name;
  config.kind = kind;
  config.d_model = size.d;
  config.d_ff = size.f;
  config.num_heads = size.heads;
  config.encoder_layers = kind == Kind::red ? size.encoder_decoder_layers : 0;
  config.decoder_layers = kind == Kind::red ? size.encoder_decoder_layers : size.decoder_only_layers;
  return config;
}

/// Odd sizes everywhere, so that no two dims can be confused.
inline ModelConfig tiny_model(Kind kind) {
  ModelConfig config;
  config.kind = kind;
  config.vocab_size = 67;
  config.d_model = 10;
  config.d_ff = 14;
  config.num_heads = 3;
  config.head_dim = 6;
  config.encoder_layers = kind == Kind::red ? 2 : 0;
  config.decoder_layers = 3;
  return config;
}

}  // namespace red::model

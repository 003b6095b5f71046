// Perplexity of a model on fixed windows, per source (model-and-recipe "Evaluation", docs/numerics.md): a
// RedLLM scores the second half of each window given the first; a DecLLM is reported on the same targets and
// on all.
#pragma once

#include <cstdint>
#include <string>

#include "data/window_provider.hpp"
#include "train/engine.hpp"

namespace red::eval {

/// Sum over targets of -log p, nats.
struct TokenLoss {
  double sum = 0.0;
  int64_t count = 0;

  double mean() const { return sum / static_cast<double>(count); }
  double perplexity() const;
};

struct SourcePerplexity {
  std::string source;
  int64_t windows = 0;
  TokenLoss second_half;  ///< targets in the second half of their window
  TokenLoss all;          ///< all targets: the same for a RedLLM
};

struct PerplexityOptions {
  int64_t window = 2048;    ///< tokens of a window
  int64_t micro_batch = 8;  ///< windows per forward pass
  int64_t max_windows = 0;  ///< of the source, from its beginning; 0: all
  data::DecoderPositions positions = data::DecoderPositions::after_encoder;
};

/// Collective; data ranks share the windows; the result is the same on every rank.
SourcePerplexity perplexity(train::Engine& engine, const data::FixedWindowProvider& windows,
                            const PerplexityOptions& options);

}  // namespace red::eval

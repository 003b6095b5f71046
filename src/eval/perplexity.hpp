// Perplexity of a model on fixed samples, per source (docs/numerics.md). Of windows a RedLLM scores the
// second half given the first; a DecLLM is reported on the same targets and on all. Of pairs both score the
// targets given the inputs.
#pragma once

#include <cstdint>
#include <string>

#include "data/source_provider.hpp"
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
  int64_t windows = 0;    ///< or pairs
  TokenLoss second_half;  ///< targets in the second half of their window; of a pair, all
  TokenLoss all;          ///< all targets: the same for a RedLLM
};

struct PerplexityOptions {
  int64_t num_late_targets = 1024;  ///< of each sample, see data::num_late_targets()
  int64_t micro_batch = 8;          ///< samples per forward pass
  int64_t max_windows = 0;          ///< of the source, from its beginning; 0: all
  data::DecoderPositions positions = data::DecoderPositions::after_encoder;
};

/// Collective; data ranks share the samples; the result is the same on every rank.
SourcePerplexity perplexity(train::Engine& engine, const data::FixedProvider& provider,
                            const PerplexityOptions& options);

}  // namespace red::eval

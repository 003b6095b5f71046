// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace red::eval {

struct SamplingConfig {
  double temperature = 0.0;  ///< 0: greedy
  int64_t top_k = 0;         ///< only the k likeliest; 0: all
  double top_p = 1.0;        ///< only the likeliest that together reach this probability
  uint64_t seed = 1;
};

/// Picks tokens; a choice is a pure function of (seed, sequence, position, logits).
class Sampler {
 public:
  explicit Sampler(const SamplingConfig& config) : config_(config) {}
  /// logits (V).
  int32_t pick(std::span<const float> logits, uint64_t sequence, uint64_t position);

 private:
  SamplingConfig config_;
  std::vector<std::pair<float, int32_t>> candidates_;  ///< (logit, token), reused
  std::vector<double> weights_;
};

}  // namespace red::eval

// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace red::eval {

struct SamplingConfig {
  double temperature = 0.0;  ///< 0: greedy
  int64_t top_k = 0;         ///< only the k likeliest; 0: all
  double top_p = 1.0;        ///< only the likeliest that together reach this probability, of those of top_k
  uint64_t seed = 1;
};

/// Throws ConfigError for values that mean nothing: temperature or top_k below 0, top_p outside (0, 1].
void validate(const SamplingConfig& config);

/// Picks tokens; a choice is a pure function of (seed, sequence, position, logits), whatever was picked
/// before, and whoever picks it.
class Sampler {
 public:
  explicit Sampler(const SamplingConfig& config) : config_(config) { validate(config); }
  /// logits (V). -inf: never. Throws DataError where one is NaN or +inf, or all are -inf.
  int32_t pick(std::span<const float> logits, uint64_t sequence, uint64_t position);

 private:
  struct Candidate {
    float logit;
    int32_t token;
    double weight;  ///< probability, not yet divided by the sum
  };
  static bool likelier(const Candidate& a, const Candidate& b);
  void keep_likeliest();
  void weigh(float largest);
  void keep_nucleus();

  SamplingConfig config_;
  std::vector<Candidate> candidates_;  ///< reused
};

}  // namespace red::eval

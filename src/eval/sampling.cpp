#include "eval/sampling.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "base/error.hpp"
#include "base/philox.hpp"

namespace red::eval {
namespace {

/// The likeliest token, of equals the first.
int32_t checked_argmax(std::span<const float> logits) {
  RED_CHECK(!logits.empty());
  std::size_t best = 0;
  bool any_nan = false;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    any_nan = any_nan || std::isnan(logits[i]);
    if (logits[i] > logits[best]) best = i;
  }
  if (any_nan || !std::isfinite(logits[best]))
    throw DataError("the model's logits are not finite: its parameters are damaged, or training diverged");
  return static_cast<int32_t>(best);
}

}  // namespace

void validate(const SamplingConfig& config) {
  if (!(config.temperature >= 0.0 && std::isfinite(config.temperature)))
    throw ConfigError("temperature {}: 0 (the likeliest token) or above", config.temperature);
  if (config.top_k < 0) throw ConfigError("top-k {}: 0 (all tokens) or above", config.top_k);
  if (!(config.top_p > 0.0 && config.top_p <= 1.0))
    throw ConfigError("top-p {}: above 0, at most 1 (all tokens)", config.top_p);
}

/// A strict order: equal logits by token, so that it does not depend on who sorts.
bool Sampler::likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

void Sampler::keep_likeliest() {
  const auto k = static_cast<std::size_t>(config_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + config_.top_k, candidates_.end(), likelier);
  candidates_.resize(k);
}

void Sampler::weigh(float largest) {
  for (Candidate& c : candidates_)
    c.weight = std::exp((static_cast<double>(c.logit) - largest) / config_.temperature);
}

/// The fewest candidates that reach top_p, the last one included. They are few as a rule, so not all are
/// sorted.
void Sampler::keep_nucleus() {
  if (config_.top_p >= 1.0) return;
  double total = 0.0, kept = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  std::size_t count = 0, sorted = 0;
  while (count < candidates_.size() && (count == 0 || kept < config_.top_p * total)) {
    if (count == sorted) {
      sorted = std::min(candidates_.size(), std::max<std::size_t>(64, 4 * sorted));
      std::partial_sort(candidates_.begin() + static_cast<std::ptrdiff_t>(count),
                        candidates_.begin() + static_cast<std::ptrdiff_t>(sorted), candidates_.end(),
                        likelier);
    }
    kept += candidates_[count++].weight;
  }
  candidates_.resize(count);
}

int32_t Sampler::pick(std::span<const float> logits, uint64_t sequence, uint64_t position) {
  const int32_t best = checked_argmax(logits);
  if (config_.temperature == 0.0) return best;
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates_.push_back({logits[i], static_cast<int32_t>(i), 0.0});
  keep_likeliest();
  weigh(logits[static_cast<std::size_t>(best)]);
  keep_nucleus();
  // In the order of tokens: rounding that swaps two equally likely ones does not move the others.
  if (candidates_.size() < logits.size())
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.weight;
  const PhiloxBlock bits = philox(hash_name("eval.sampling", config_.seed), position, sequence);
  double left = total * (static_cast<double>(bits[0]) * 0x1.0p-32 + static_cast<double>(bits[1]) * 0x1.0p-64);
  for (const Candidate& c : candidates_) {
    left -= c.weight;
    if (left < 0.0) return c.token;
  }
  return best;  // rounding ate the last bit
}

}  // namespace red::eval

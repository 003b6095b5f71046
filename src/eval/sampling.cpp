#include "eval/sampling.hpp"

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "base/philox.hpp"

namespace red::eval {

int32_t Sampler::pick(std::span<const float> logits, uint64_t sequence, uint64_t position) {
  RED_CHECK(!logits.empty());
  if (config_.temperature == 0.0) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  candidates_.clear();
  for (std::size_t i = 0; i < logits.size(); ++i)
    candidates_.emplace_back(logits[i], static_cast<int32_t>(i));
  // Likeliest first; equal logits by token, so that the choice does not depend on the sort.
  std::sort(candidates_.begin(), candidates_.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  if (config_.top_k > 0) candidates_.resize(std::min<std::size_t>(candidates_.size(), config_.top_k));
  weights_.clear();
  double total = 0.0;
  for (const auto& [logit, token] : candidates_) {
    weights_.push_back(
        std::exp((static_cast<double>(logit) - candidates_.front().first) / config_.temperature));
    total += weights_.back();
  }
  // The nucleus: the fewest candidates that reach top_p, the last one included.
  double kept = 0.0;
  std::size_t count = 0;
  while (count < weights_.size() && (count == 0 || kept < config_.top_p * total)) kept += weights_[count++];
  const PhiloxBlock bits = philox(hash_name("eval.sampling", config_.seed), position, sequence);
  double left = kept * (static_cast<double>(bits[0]) * 0x1.0p-32 + static_cast<double>(bits[1]) * 0x1.0p-64);
  for (std::size_t i = 0; i < count; ++i) {
    left -= weights_[i];
    if (left < 0.0) return candidates_[i].second;
  }
  return candidates_[count - 1].second;
}

}  // namespace red::eval

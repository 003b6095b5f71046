#include "data/mixture.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "data/keyed_permutation.hpp"

namespace red::data {
namespace {

void check_shares(std::span<const Mixture::Share> shares, int64_t block) {
  if (shares.empty()) throw ConfigError("no data source: add a section [data.source.NAME]");
  if (block < 1) throw ConfigError("data.block = {}: it must be at least 1", block);
  for (std::size_t i = 0; i < shares.size(); ++i) {
    if (!std::isfinite(shares[i].weight) || shares[i].weight <= 0) {
      throw ConfigError(
          "data.source.{}.weight = {}: it must be a positive number; leave the source out to drop it",
          shares[i].name, shares[i].weight);
    }
    for (std::size_t j = 0; j < i; ++j) {
      if (shares[i].name == shares[j].name)
        throw ConfigError("two data sources are named '{}'", shares[i].name);
    }
  }
}

/// Whole numbers that add up to `block`, each within one of its exact share.
std::vector<int64_t> quotas_of(std::span<const Mixture::Share> shares, int64_t block) {
  double total = 0;
  for (const auto& share : shares) total += share.weight;
  std::vector<int64_t> quotas;
  std::vector<double> remainders;
  for (const auto& share : shares) {
    const double exact = share.weight / total * static_cast<double>(block);
    quotas.push_back(static_cast<int64_t>(std::floor(exact)));
    remainders.push_back(exact - std::floor(exact));
  }
  std::vector<std::size_t> order(shares.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return remainders[a] > remainders[b]; });
  const int64_t missing = block - std::accumulate(quotas.begin(), quotas.end(), int64_t{0});
  for (int64_t i = 0; i < missing; ++i) ++quotas[order[static_cast<std::size_t>(i) % order.size()]];
  for (std::size_t i = 0; i < quotas.size(); ++i) {
    if (quotas[i] > 0) continue;
    throw ConfigError(
        "data.source.{}.weight = {}: its share of {:.3g} gives no sample in a block of {}; raise data.block "
        "to {} "
        "or the weight",
        shares[i].name, shares[i].weight, shares[i].weight / total, block,
        std::ceil(total / shares[i].weight));
  }
  return quotas;
}

}  // namespace

Mixture::Mixture(std::span<const Share> shares, int64_t block, uint64_t seed)
    : block_(block), key_(hash_name("data.mixture", seed)) {
  check_shares(shares, block);
  quotas_ = quotas_of(shares, block);
  first_slot_.assign(1, 0);
  for (const int64_t quota : quotas_) first_slot_.push_back(first_slot_.back() + quota);
}

Mixture::Draw Mixture::draw(uint64_t index) const {
  const auto size = static_cast<uint64_t>(block_);
  const uint64_t block = index / size;
  const auto slot = static_cast<int64_t>(KeyedPermutation(size, key_, block)(index % size));
  const auto after = std::upper_bound(first_slot_.begin(), first_slot_.end(), slot);
  const auto source = static_cast<std::size_t>(after - first_slot_.begin()) - 1;
  return {static_cast<int32_t>(source),
          block * static_cast<uint64_t>(quotas_[source]) + static_cast<uint64_t>(slot - first_slot_[source])};
}

}  // namespace red::data

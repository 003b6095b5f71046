#include "data/mixture.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"
#include "base/philox.hpp"

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

/// `num_slots` slots in a row, `num_marked` of them marked: whether one of them is, and how many before it.
struct Marks {
  bool here = false;
  uint64_t before = 0;
};

/// The slots are halved until the one asked for stands alone or nothing is open any more. Each half gets its
/// share of the marked ones, rounded down or up by the key with the chances that make all slots alike. So no
/// slot has to be looked at but the one asked for, and marks are spread evenly.
Marks find_marks(uint64_t slot, uint64_t num_slots, uint64_t num_marked, uint64_t key) {
  uint64_t begin = 0, before = 0;
  while (num_marked > 0 && num_marked < num_slots) {
    const uint64_t left = num_slots / 2, share = num_marked * left;
    const uint64_t die = philox(key, begin, num_slots)[0] * num_slots >> 32;  // 0 ... num_slots - 1
    const uint64_t left_marked = share / num_slots + (die < share % num_slots ? 1 : 0);
    if (slot < begin + left) {
      num_slots = left;
      num_marked = left_marked;
    } else {
      begin += left;
      before += left_marked;
      num_slots -= left;
      num_marked -= left_marked;
    }
  }
  return {num_marked > 0, num_marked > 0 ? before + slot - begin : before};
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
  // Sources are told apart by halves as well: which half of them the slot belongs to, and its place among the
  // slots of that half.
  uint64_t slot = index % size;
  std::size_t first = 0, last = quotas_.size();
  while (last - first > 1) {
    const std::size_t middle = first + (last - first) / 2;
    const auto count = static_cast<uint64_t>(first_slot_[last] - first_slot_[first]);
    const auto upper = static_cast<uint64_t>(first_slot_[last] - first_slot_[middle]);
    const PhiloxBlock key = philox(key_, block, middle);
    const Marks marks = find_marks(slot, count, upper, static_cast<uint64_t>(key[1]) << 32 | key[0]);
    slot = marks.here ? marks.before : slot - marks.before;
    (marks.here ? first : last) = middle;
  }
  return {static_cast<int32_t>(first), block * static_cast<uint64_t>(quotas_[first]) + slot};
}

}  // namespace red::data

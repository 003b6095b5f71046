// Which source a global sample comes from, and how many samples of that source come before it, in closed
// form. Every block of K samples holds exactly the same number from each source, in an order of its own.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace red::data {

class Mixture {
 public:
  struct Share {
    std::string name;
    double weight = 1.0;  ///< relative
  };
  struct Draw {
    int32_t source = 0;
    uint64_t ordinal = 0;  ///< how many samples of this source have a smaller index
  };

  /// Quotas are weights scaled to `block`, rounded by largest remainder. Throws ConfigError for no source,
  /// weights that are not positive, names used twice, and a share too small for one sample in a block.
  Mixture(std::span<const Share> shares, int64_t block, uint64_t seed);

  /// In O(log block x log sources), without memory of other samples.
  Draw draw(uint64_t index) const;
  /// Samples of each source in every block; they add up to the block.
  std::span<const int64_t> quotas() const { return quotas_; }
  int64_t block() const { return block_; }

 private:
  int64_t block_;
  uint64_t key_;
  std::vector<int64_t> quotas_;
  std::vector<int64_t> first_slot_;  ///< (sources + 1), running sums of the quotas
};

}  // namespace red::data

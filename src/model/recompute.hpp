// Activations that the backward pass makes again instead of finding them kept: memory for time.
#pragma once

#include <array>
#include <string_view>

namespace red::model {

enum class Recompute {
  none,
  selective,  ///< the feed-forward block's first product, a layer's largest activation
  full,       ///< all of a layer but its input: a forward pass without the last product
};

/// As train.recompute spells it.
constexpr std::string_view name_of(Recompute recompute) {
  return std::array<std::string_view, 3>{"none", "selective", "full"}[static_cast<std::size_t>(recompute)];
}

}  // namespace red::model

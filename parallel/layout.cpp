#include "parallel/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.hpp"
#include "base/error.hpp"

namespace red::parallel {
namespace {

/// How far apart two layouts are, in doublings of a degree.
double distance(const Layout& a, const Layout& b) {
  auto doublings = [](int x, int y) { return std::abs(std::log2((x + 0.5) / (y + 0.5))); };
  return doublings(a.data, b.data) + doublings(a.tensor, b.tensor) +
         doublings(a.encoder_stages, b.encoder_stages) + doublings(a.decoder_stages, b.decoder_stages);
}

/// What keeps a model from running in a layout, by key; empty when it can.
std::string obstacle(const Layout& layout, const LayoutLimits& limits) {
  if (!limits.has_encoder && layout.encoder_stages > 0) {
    return fmt::format("parallel.encoder_stages = {}: a DecLLM has no encoder, so this must be 0",
                       layout.encoder_stages);
  }
  if (limits.has_encoder && layout.encoder_stages == 0 && layout.decoder_stages > 1) {
    return fmt::format(
        "parallel.encoder_stages = 0: the encoder shares the decoder's stage only where there is one, and "
        "parallel.decoder_stages = {}",
        layout.decoder_stages);
  }
  if (limits.has_encoder && layout.encoder_stages > limits.encoder_layers) {
    return fmt::format(
        "parallel.encoder_stages = {}: each stage needs a layer, and model.encoder_layers = {}",
        layout.encoder_stages, limits.encoder_layers);
  }
  if (layout.decoder_stages > limits.decoder_layers) {
    return fmt::format(
        "parallel.decoder_stages = {}: each stage needs a layer, and model.decoder_layers = {}",
        layout.decoder_stages, limits.decoder_layers);
  }
  if (layout.tensor > limits.num_heads) {
    return fmt::format("parallel.tensor = {}: each tensor rank needs a head, and model.num_heads = {}",
                       layout.tensor, limits.num_heads);
  }
  if (layout.tensor > limits.d_ff) {
    return fmt::format("parallel.tensor = {}: more ranks than columns of the FFN, model.d_ff = {}",
                       layout.tensor, limits.d_ff);
  }
  return {};
}

/// "; nearest that run on 4 ranks: ..., or ..."
std::string suggestion(const Layout& wish, int num_ranks, const LayoutLimits& limits) {
  constexpr std::size_t most = 3;
  std::vector<Layout> legal = legal_layouts(num_ranks, limits);
  if (legal.empty()) return fmt::format("; this model has no layout for {} ranks", num_ranks);
  std::stable_sort(legal.begin(), legal.end(),
                   [&](const Layout& a, const Layout& b) { return distance(a, wish) < distance(b, wish); });
  std::string text = fmt::format("; nearest that run on {} rank{}: ", num_ranks, num_ranks == 1 ? "" : "s");
  for (std::size_t i = 0; i < std::min(most, legal.size()); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", or ", legal[i].to_string());
  }
  return text;
}

void check_degree(const char* key, int value, int least) {
  if (value < least) throw ConfigError("parallel.{} = {}: must be at least {}", key, value, least);
}

}  // namespace

std::string Layout::to_string() const {
  return fmt::format("data {} x tensor {}{} x (encoder {} + decoder {})", data, tensor,
                     sequence_parallel ? " with sequence parallelism" : "", encoder_stages, decoder_stages);
}

std::vector<Layout> legal_layouts(int num_ranks, const LayoutLimits& limits) {
  std::vector<Layout> legal;
  for (int stages = 1; stages <= num_ranks; ++stages) {
    for (int encoder = 0; encoder < stages; ++encoder) {
      for (int tensor = 1; tensor <= num_ranks / stages; ++tensor) {
        if (num_ranks % (stages * tensor) != 0) continue;
        const Layout layout{num_ranks / (stages * tensor), tensor, encoder, stages - encoder, false};
        if (obstacle(layout, limits).empty()) legal.push_back(layout);
      }
    }
  }
  return legal;
}

void validate(const Layout& layout, int num_ranks, const LayoutLimits& limits) {
  RED_CHECK(num_ranks >= 1, "num_ranks {}", num_ranks);
  check_degree("data", layout.data, 1);
  check_degree("tensor", layout.tensor, 1);
  check_degree("encoder_stages", layout.encoder_stages, 0);
  check_degree("decoder_stages", layout.decoder_stages, 1);
  if (const std::string text = obstacle(layout, limits); !text.empty()) {
    throw ConfigError("{}{}", text, suggestion(layout, num_ranks, limits));
  }
  // In floating point, because a slip of the keyboard must not overflow.
  const double product = static_cast<double>(layout.data) * layout.tensor *
                         (static_cast<double>(layout.encoder_stages) + layout.decoder_stages);
  if (product != num_ranks) {
    throw ConfigError(
        "the layout needs {:.0f} ranks and the program runs on {}: parallel.data {} x parallel.tensor {} x "
        "(parallel.encoder_stages {} + parallel.decoder_stages {}){}",
        product, num_ranks, layout.data, layout.tensor, layout.encoder_stages, layout.decoder_stages,
        suggestion(layout, num_ranks, limits));
  }
}

Coordinates coordinates_of(const Layout& layout, int rank) {
  RED_CHECK(rank >= 0 && rank < layout.num_ranks(), "rank {} of {}", rank, layout.num_ranks());
  return {.stage = rank / (layout.data * layout.tensor),
          .data = rank / layout.tensor % layout.data,
          .tensor = rank % layout.tensor};
}

int rank_of(const Layout& layout, const Coordinates& at) {
  RED_CHECK(at.stage >= 0 && at.stage < layout.num_stages() && at.data >= 0 && at.data < layout.data &&
                at.tensor >= 0 && at.tensor < layout.tensor,
            "stage {} data {} tensor {} in {}", at.stage, at.data, at.tensor, layout.to_string());
  return (at.stage * layout.data + at.data) * layout.tensor + at.tensor;
}

}  // namespace red::parallel

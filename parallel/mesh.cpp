#include "parallel/mesh.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace red::parallel {
namespace {

/// Layouts that this version does not run yet: what is in the way, by name; empty when it runs. The only
/// place that knows.
std::string not_yet(const Layout& layout) {
  if (layout.tensor > 1) return fmt::format("parallel.tensor = {} (tensor parallelism)", layout.tensor);
  if (layout.encoder_stages > 1) {
    return fmt::format("parallel.encoder_stages = {} (an encoder cut into stages)", layout.encoder_stages);
  }
  if (layout.decoder_stages > 1) {
    return fmt::format("parallel.decoder_stages = {} (a decoder cut into stages)", layout.decoder_stages);
  }
  return {};
}

/// How far apart two layouts are, in doublings of a degree.
double distance(const Layout& a, const Layout& b) {
  auto doublings = [](int x, int y) { return std::abs(std::log2((x + 0.5) / (y + 0.5))); };
  return doublings(a.data, b.data) + doublings(a.tensor, b.tensor) +
         doublings(a.encoder_stages, b.encoder_stages) + doublings(a.decoder_stages, b.decoder_stages);
}

/// Layouts for exactly this many ranks that this version runs, nearest to the wish first.
std::vector<Layout> legal_layouts(const Layout& wish, int num_ranks, bool has_encoder) {
  std::vector<Layout> legal;
  for (int stages = 1; stages <= num_ranks; ++stages) {
    for (int encoder = 0; encoder < (has_encoder ? stages : 1); ++encoder) {
      for (int tensor = 1; tensor <= num_ranks / stages; ++tensor) {
        if (num_ranks % (stages * tensor) != 0) continue;
        const Layout layout{num_ranks / (stages * tensor), tensor, encoder, stages - encoder};
        if (not_yet(layout).empty()) legal.push_back(layout);
      }
    }
  }
  std::stable_sort(legal.begin(), legal.end(),
                   [&](const Layout& a, const Layout& b) { return distance(a, wish) < distance(b, wish); });
  return legal;
}

/// "; for 4 ranks use one of: ..."
std::string suggestion(const Layout& wish, int num_ranks, bool has_encoder) {
  constexpr std::size_t most = 3;
  std::string text = fmt::format("; nearest that run on {} rank{}: ", num_ranks, num_ranks == 1 ? "" : "s");
  const std::vector<Layout> legal = legal_layouts(wish, num_ranks, has_encoder);
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
  return fmt::format("data {} x tensor {} x (encoder {} + decoder {})", data, tensor, encoder_stages,
                     decoder_stages);
}

void validate(const Layout& layout, int num_ranks, bool has_encoder) {
  RED_CHECK(num_ranks >= 1, "num_ranks {}", num_ranks);
  check_degree("data", layout.data, 1);
  check_degree("tensor", layout.tensor, 1);
  check_degree("encoder_stages", layout.encoder_stages, 0);
  check_degree("decoder_stages", layout.decoder_stages, 1);
  if (!has_encoder && layout.encoder_stages != 0) {
    throw ConfigError("parallel.encoder_stages = {}: a DecLLM has no encoder, so this must be 0{}",
                      layout.encoder_stages, suggestion(layout, num_ranks, has_encoder));
  }
  // In floating point, because a slip of the keyboard must not overflow.
  const double product = static_cast<double>(layout.data) * layout.tensor *
                         (static_cast<double>(layout.encoder_stages) + layout.decoder_stages);
  if (product != num_ranks) {
    throw ConfigError(
        "the layout needs {:.0f} ranks and the program runs on {}: parallel.data {} x parallel.tensor {} x "
        "(parallel.encoder_stages {} + parallel.decoder_stages {}){}",
        product, num_ranks, layout.data, layout.tensor, layout.encoder_stages, layout.decoder_stages,
        suggestion(layout, num_ranks, has_encoder));
  }
  if (const std::string missing = not_yet(layout); !missing.empty()) {
    throw ConfigError("{} is not yet supported{}", missing, suggestion(layout, num_ranks, has_encoder));
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

Mesh::Mesh(const Layout& layout, Communicator& world, bool has_encoder) : layout_(layout), world_(world) {
  validate(layout, world.size(), has_encoder);
  at_ = coordinates_of(layout, world.rank());
  data_ = world.split(at_.stage * layout.tensor + at_.tensor, at_.data, "data");
  pipeline_ = world.split(at_.data * layout.tensor + at_.tensor, at_.stage, "pipeline");
  stage_ = world.split(at_.stage, world.rank(), "stage");
}

}  // namespace red::parallel

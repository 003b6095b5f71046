// Layers of one stack cost the same, and only its first and last stage carry something more. So the best
// split comes from handing out the layers one by one to the stage that stays lightest: the largest cost is
// then as small as it can be, and so is the sum of squares.
#include "parallel/placement.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <string_view>

#include "base/error.hpp"

namespace red::parallel {
namespace {

/// One of the two stacks with what its ends carry.
struct Stack {
  std::string_view name;  // "encoder", "decoder"
  int64_t layers = 0;
  double layer_cost = 1.0;
  double first_cost = 0.0;  // on its first stage
  double last_cost = 0.0;   // on its last stage
  int chunks = 1;           // of each stage; below, stages are virtual ones

  /// "parallel.encoder_stages = 2", and the chunks where there are several.
  std::string stages_text(int num_stages) const {
    std::string text = fmt::format("parallel.{}_stages = {}", name, num_stages / chunks);
    if (chunks > 1) text += fmt::format(" of parallel.virtual_stages = {}", chunks);
    return text;
  }
  double fixed_cost(int stage, int num_stages) const {
    return (stage == 0 ? first_cost : 0.0) + (stage == num_stages - 1 ? last_cost : 0.0);
  }
};

std::vector<int64_t> best_split(const Stack& stack, int num_stages) {
  std::vector<int64_t> split(static_cast<std::size_t>(num_stages), 1);
  for (int64_t left = stack.layers - num_stages; left > 0; --left) {
    int lightest = 0;
    double least = 0.0;
    for (int stage = 0; stage < num_stages; ++stage) {
      const double cost = stack.fixed_cost(stage, num_stages) +
                          stack.layer_cost * static_cast<double>(split[static_cast<std::size_t>(stage)] + 1);
      if (stage == 0 || cost <= least) {
        lightest = stage;
        least = cost;
      }
    }
    ++split[static_cast<std::size_t>(lightest)];
  }
  return split;
}

void check_users_split(const Stack& stack, int num_stages, const std::vector<int64_t>& split) {
  const int64_t total = std::accumulate(split.begin(), split.end(), int64_t{0});
  const bool positive = std::all_of(split.begin(), split.end(), [](int64_t n) { return n >= 1; });
  if (static_cast<int64_t>(split.size()) == num_stages && positive && total == stack.layers) return;
  throw ConfigError(
      "parallel.{0}_split = {1}: needs one positive number of layers for each of {2}, {3} in all "
      "(model.{0}_layers); this one has {4} numbers and {5} layers. One that works: {6}",
      stack.name, fmt::join(split, ","), stack.stages_text(num_stages), stack.layers, split.size(), total,
      fmt::join(best_split(stack, num_stages), ","));
}

std::vector<int64_t> split_stack(const Stack& stack, int num_stages, const std::vector<int64_t>& users) {
  if (num_stages == 0) {
    if (!users.empty()) {
      throw ConfigError(
          "parallel.{0}_split = {1}: there are no stages of the {0} alone (parallel.{0}_stages = 0)",
          stack.name, fmt::join(users, ","));
    }
    return {};
  }
  if (stack.layers < num_stages) {
    throw ConfigError(
        "{1}: the model has {2} {0} layers (model.{0}_layers), and each {3} needs at least one; use at most "
        "{4} stages",
        stack.name, stack.stages_text(num_stages), stack.layers,
        stack.chunks > 1 ? "chunk of a stage" : "stage", stack.layers / stack.chunks);
  }
  if (users.empty()) return best_split(stack, num_stages);
  check_users_split(stack, num_stages, users);
  return users;
}

void check_stages(const LayerCounts& layers, int encoder_stages, int decoder_stages) {
  if (decoder_stages < 1 || encoder_stages < 0) {
    throw ConfigError("parallel.encoder_stages = {}, parallel.decoder_stages = {}: needs at least 0 and 1",
                      encoder_stages, decoder_stages);
  }
  if (!layers.has_encoder && encoder_stages > 0) {
    throw ConfigError("parallel.encoder_stages = {}: a DecLLM (model.kind = dec) has no encoder; set it to 0",
                      encoder_stages);
  }
  if (layers.has_encoder && encoder_stages == 0 && decoder_stages > 1) {
    throw ConfigError(
        "parallel.encoder_stages = 0: the encoder shares the decoder's stage only where there is one; with "
        "parallel.decoder_stages = {} set parallel.encoder_stages to 1 or more",
        decoder_stages);
  }
}

Placement empty_placement(const PipelineShape& shape) {
  Placement placement;
  placement.stages.resize(static_cast<std::size_t>(shape.num_virtual_stages()));
  for (int s = 0; s < shape.num_virtual_stages(); ++s) {
    StagePlacement& stage = placement.stages[static_cast<std::size_t>(s)];
    stage.stage = shape.stage_of(s);
    stage.chunk = shape.chunk_of(s);
  }
  return placement;
}

/// The stages, not the chunks, that share the tied embedding.
void find_holders(Placement& placement) {
  std::set<int> holders;
  for (const StagePlacement& stage : placement.stages) {
    if (stage.holds_embedding()) holders.insert(stage.stage);
    if (stage.owns_embedding()) placement.embedding_owner = stage.stage;
  }
  placement.embedding_holders.assign(holders.begin(), holders.end());
}

/// Gives a stack's layers to the stages from `first` on and adds their cost.
void place_stack(const Stack& stack, const std::vector<int64_t>& split, std::size_t first,
                 int64_t StagePlacement::*begin, int64_t StagePlacement::*end, Placement& placement) {
  int64_t next = 0;
  for (std::size_t i = 0; i < split.size(); ++i) {
    StagePlacement& stage = placement.stages[first + i];
    stage.*begin = next;
    stage.*end = next += split[i];
    stage.cost += stack.fixed_cost(static_cast<int>(i), static_cast<int>(split.size())) +
                  stack.layer_cost * static_cast<double>(split[i]);
  }
}

}  // namespace

Placement place_layers(const LayerCounts& layers, const PipelineShape& shape, const LayerCosts& costs,
                       const LayerSplit& split) {
  check_stages(layers, shape.encoder_stages, shape.decoder_stages);
  const Stack encoder{.name = "encoder",
                      .layers = layers.encoder_layers,
                      .layer_cost = costs.encoder_layer,
                      .first_cost = costs.encoder_embedding,
                      .chunks = shape.virtual_stages};
  const Stack decoder{.name = "decoder",
                      .layers = layers.decoder_layers,
                      .layer_cost = costs.decoder_layer,
                      .first_cost = costs.decoder_embedding,
                      .last_cost = costs.head,
                      .chunks = shape.virtual_stages};
  const int num_encoder = shape.first_decoder(), num_decoder = shape.num_virtual_stages() - num_encoder;
  std::vector<int64_t> encoder_split = split_stack(encoder, num_encoder, split.encoder);
  if (layers.has_encoder && num_encoder == 0) encoder_split = {encoder.layers};

  Placement placement = empty_placement(shape);
  const auto first_decoder = static_cast<std::size_t>(num_encoder);
  place_stack(encoder, encoder_split, 0, &StagePlacement::encoder_begin, &StagePlacement::encoder_end,
              placement);
  place_stack(decoder, split_stack(decoder, num_decoder, split.decoder), first_decoder,
              &StagePlacement::decoder_begin, &StagePlacement::decoder_end, placement);
  if (layers.has_encoder) {
    placement.stages.front().has_encoder_embedding = true;
    placement.stages[encoder_split.size() - 1].has_encoder_final_norm = true;
  }
  placement.stages[first_decoder].has_decoder_embedding = true;
  placement.stages.back().has_head = true;
  find_holders(placement);
  return placement;
}

std::vector<StagePlacement> Placement::chunks_of(int stage) const {
  std::vector<StagePlacement> chunks;
  for (const StagePlacement& s : stages) {
    if (s.stage == stage) chunks.push_back(s);
  }
  return chunks;
}

double Placement::cost_of(int stage) const {
  double cost = 0.0;
  for (const StagePlacement& chunk : chunks_of(stage)) cost += chunk.cost;
  return cost;
}

double Placement::imbalance() const {
  double total = 0.0, largest = 0.0;
  int num_stages = 0;
  for (; !chunks_of(num_stages).empty(); ++num_stages) {
    total += cost_of(num_stages);
    largest = std::max(largest, cost_of(num_stages));
  }
  return total == 0.0 ? 1.0 : largest * static_cast<double>(num_stages) / total;
}

bool hold_embedding(const std::vector<StagePlacement>& chunks) {
  return std::any_of(chunks.begin(), chunks.end(), [](const auto& chunk) { return chunk.holds_embedding(); });
}

bool own_embedding(const std::vector<StagePlacement>& chunks) {
  return std::any_of(chunks.begin(), chunks.end(), [](const auto& chunk) { return chunk.owns_embedding(); });
}

std::string to_string(const StagePlacement& stage) {
  std::vector<std::string> parts;
  const auto add_layers = [&parts](std::string_view stack, int64_t begin, int64_t end) {
    if (end - begin == 1) parts.push_back(fmt::format("{} layer {}", stack, begin));
    if (end - begin > 1) parts.push_back(fmt::format("{} layers {}-{}", stack, begin, end - 1));
  };
  add_layers("encoder", stage.encoder_begin, stage.encoder_end);
  add_layers("decoder", stage.decoder_begin, stage.decoder_end);
  if (stage.has_encoder_embedding || stage.has_decoder_embedding) parts.emplace_back("embedding");
  if (stage.has_encoder_final_norm) parts.emplace_back("encoder output");
  if (stage.has_head) parts.emplace_back("head");
  return fmt::format("stage {}: {}", stage.stage, fmt::join(parts, ", "));
}

}  // namespace red::parallel

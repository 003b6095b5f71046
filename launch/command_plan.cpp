// redllm plan: what a layout asks of every rank, without starting any.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "config/command_line.hpp"
#include "config/validate.hpp"
#include "data/source_provider.hpp"
#include "launch/commands.hpp"
#include "launch/roofline.hpp"
#include "train/bubble.hpp"
#include "train/memory_plan.hpp"
#include "train/run_options.hpp"

namespace red::launch {
namespace {

using nlohmann::ordered_json;
using train::bytes_text;
using train::MemoryPlan;
using train::RankPlan;

config::CommandSpec spec() {
  return {
      .name = "plan",
      .summary =
          "Prints what a configuration's layout asks of every rank, without starting MPI or allocating: "
          "by stage\n"
          "its layers, parameters, share of the forward FLOPs, micro-batches in flight and memory by "
          "what it is\n"
          "for; bytes of a checkpoint; the pipeline's bubble. Memory is what training allocates, to the "
          "byte;\n"
          "program, MPI and matrix library come on top (docs/parallelism.md). A model alone will do: "
          "without\n"
          "them train.micro_batch is 1, train.global_batch as many micro-batches as there are stages, "
          "and\n"
          "train.threads 1.",
      .options = {{"json", "", "one JSON object, every rank in it; bytes", false},
                  {"roofline", "GPU",
                   "each op of a step with its FLOPs, its bytes and the least time that it can take on such "
                   "a GPU, by the\n"
                   "maker's figures: h100, a100, h200, b200, \"NVIDIA L40S\", ...",
                   false}},
      .takes_config = true,
      .example =
          "redllm plan --config configs/models/red_8b.ini --parallel.data=4 --parallel.tensor=4 \\\n"
          "  --parallel.encoder_stages=2 --parallel.decoder_stages=3 --train.global_batch=128"};
}

/// Everything that is printed.
struct Plan {
  config::RunConfig config;
  MemoryPlan memory;
  int num_micro_batches = 1;  ///< of one data rank in one step
  double bubble = 0.0;
  std::optional<Roofline> roofline;
};

const GpuSpecs& specs_of(const std::string& name) {
  if (const GpuSpecs* specs = find_gpu_specs(name); specs != nullptr) return *specs;
  std::string known;
  for (const GpuSpecs& specs : all_gpu_specs())
    known += fmt::format("{}{}", known.empty() ? "" : ", ", specs.name);
  throw ConfigError("--roofline {}: nothing is known of such a GPU; known are {}", name, known);
}

/// specs: of the GPU that a roofline is for, or none.
Plan make_plan(config::Loaded& loaded, const GpuSpecs* specs) {
  config::RunConfig& config = loaded.config;
  config::TrainConfig& train = config.train;
  if (train.micro_batch == 0) train.micro_batch = 1;
  if (train.global_batch == 0)
    train.global_batch = train.micro_batch * config.parallel.data * config.parallel.num_stages();
  if (train.threads == 0) train.threads = 1;
  if (train.precision == model::Precision::automatic)
    train.precision = specs != nullptr || gemm_library().has_bf16_arithmetic() ? model::Precision::bf16
                                                                               : model::Precision::fp32;
  config::validate(loaded, config::kBenchUse);
  const data::SampleLengths lengths = data::sample_lengths(config.data, config.model.has_encoder());
  const train::EngineOptions options = train::training_options(config, lengths);
  Plan plan{config,
            train::plan_memory(options, config.parallel, train.threads),
            options.max_micro_batches,
            train::modelled_bubble(options, config.parallel),
            {}};
  if (specs != nullptr) plan.roofline = roofline_of(config, lengths, *specs);
  return plan;
}

std::string samples_text(const data::DataConfig& config) {
  if (config.samples == data::SampleKind::windows) return fmt::format("windows of {} tokens", config.window);
  return fmt::format("pairs of up to {} + {} tokens, planned as if all were so long", config.input_length,
                     config.target_length);
}

/// "1.23 M"
std::string count_text(int64_t count) {
  constexpr std::pair<double, const char*> units[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [size, name] : units) {
    if (static_cast<double>(count) >= size)
      return fmt::format("{:.2f} {}", static_cast<double>(count) / size, name);
  }
  return fmt::format("{}", count);
}

std::string layers_text(int64_t begin, int64_t end) {
  if (begin == end) return "-";
  return end - begin == 1 ? fmt::format("{}", begin) : fmt::format("{}-{}", begin, end - 1);
}

double flops_share(const Plan& plan, int stage) {
  double all = 0.0;
  for (const parallel::StagePlacement& s : plan.memory.placement.stages) all += s.cost;
  return plan.memory.placement.cost_of(stage) / all;
}

/// f(virtual stage) of each chunk of a stage, with a plus between them.
std::string of_chunks(const MemoryPlan& plan, int stage,
                      const std::function<std::string(std::size_t virtual_stage)>& f) {
  std::string text;
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    if (plan.placement.stages[i].stage == stage) text += fmt::format("{}{}", text.empty() ? "" : "+", f(i));
  }
  return text;
}

/// Slots of all chunks of a stage.
int num_slots(const MemoryPlan& plan, int stage) {
  int sum = 0;
  for (std::size_t i = 0; i < plan.slots.size(); ++i)
    sum += plan.placement.stages[i].stage == stage ? plan.slots[i] : 0;
  RED_CHECK(sum > 0, "stage {} has no slot for a micro-batch", stage);
  return sum;
}

/// Of all ranks of a stage.
std::size_t sum_over_stage(const MemoryPlan& plan, int stage,
                           const std::function<std::size_t(const RankPlan&)>& bytes) {
  std::size_t sum = 0;
  for (const RankPlan& rank : plan.ranks) sum += rank.at.stage == stage ? bytes(rank) : 0;
  return sum;
}

std::size_t checkpoint_of(const RankPlan& rank) {
  return rank.checkpoint;
}

struct Row {
  std::string name;
  std::function<std::string(int stage)> cell;
};

std::vector<Row> layer_rows(const Plan& plan) {
  const MemoryPlan& memory = plan.memory;
  using parallel::StagePlacement;
  const auto layers = [&memory](int64_t StagePlacement::*begin, int64_t StagePlacement::*end) {
    return [&memory, begin, end](int stage) -> std::string {
      const std::string text = of_chunks(memory, stage, [&](std::size_t i) {
        return layers_text(memory.placement.stages[i].*begin, memory.placement.stages[i].*end);
      });
      return text.starts_with('-') ? "-" : text;  // no chunk has any
    };
  };
  const auto embedding = [&memory](int stage) {
    const std::vector<StagePlacement> chunks = memory.placement.chunks_of(stage);
    return parallel::own_embedding(chunks) ? "head" : parallel::hold_embedding(chunks) ? "copy" : "-";
  };
  const auto in_flight = [&memory](int stage) {
    return of_chunks(memory, stage, [&](std::size_t i) { return fmt::format("{}", memory.slots[i]); });
  };
  return {
      {"encoder layers", layers(&StagePlacement::encoder_begin, &StagePlacement::encoder_end)},
      {"decoder layers", layers(&StagePlacement::decoder_begin, &StagePlacement::decoder_end)},
      {"embedding", embedding},
      {"forward FLOPs", [&plan](int s) { return fmt::format("{:.1f} %", 100.0 * flops_share(plan, s)); }},
      {"in flight", in_flight},
  };
}

/// Of the stage's largest rank, parts that no stage has left out.
std::vector<Row> memory_rows(const Plan& plan) {
  const MemoryPlan& memory = plan.memory;
  const auto largest = [&memory](int s) -> const RankPlan& { return memory.largest_of_stage(s); };
  std::vector<Row> rows = {{"parameters", [=](int s) { return count_text(largest(s).parameters); }}};
  for (const train::MemoryPart& part : train::kMemoryParts) {
    const bool any = std::any_of(memory.ranks.begin(), memory.ranks.end(),
                                 [&part](const RankPlan& rank) { return rank.memory.*part.bytes != 0; });
    if (!any) continue;
    rows.push_back(
        {fmt::format("  {}", part.name), [=](int s) { return bytes_text(largest(s).memory.*part.bytes); }});
    if (part.bytes == &train::MemoryUse::activations)
      rows.push_back({"    of each in flight", [=, &memory](int s) {
                        return bytes_text(largest(s).memory.activations /
                                          static_cast<std::size_t>(num_slots(memory, s)));
                      }});
    if (part.bytes == &train::MemoryUse::temporaries)
      rows.push_back({"    of them logits", [=](int s) { return bytes_text(largest(s).logits); }});
  }
  rows.push_back({"largest rank", [=](int s) { return bytes_text(largest(s).memory.total()); }});
  rows.push_back({"all its ranks", [&memory](int s) {
                    return bytes_text(
                        sum_over_stage(memory, s, [](const RankPlan& rank) { return rank.memory.total(); }));
                  }});
  rows.push_back(
      {"checkpoint", [&memory](int s) { return bytes_text(sum_over_stage(memory, s, checkpoint_of)); }});
  return rows;
}

void print_stages(const Plan& plan) {
  constexpr int stages_per_table = 6;
  const int num_stages = plan.memory.layout.num_stages();
  const int width = std::max(12, 6 * plan.config.num_chunks() + 2);
  for (int begin = 0; begin < num_stages; begin += stages_per_table) {
    const int end = std::min(num_stages, begin + stages_per_table);
    fmt::print("\n{:<22}", "stage");
    for (int s = begin; s < end; ++s) fmt::print("{:>{}}", s, width);
    fmt::print("\n");
    for (const auto& rows : {layer_rows(plan), memory_rows(plan)}) {
      for (const Row& row : rows) {
        fmt::print("{:<22}", row.name);
        for (int s = begin; s < end; ++s) fmt::print("{:>{}}", row.cell(s), width);
        fmt::print("\n");
      }
    }
  }
}

void print_table(const Plan& plan) {
  const config::RunConfig& config = plan.config;
  const MemoryPlan& memory = plan.memory;
  const RankPlan& most = memory.largest();
  const RankPlan& writer =
      *std::max_element(memory.ranks.begin(), memory.ranks.end(),
                        [](const RankPlan& a, const RankPlan& b) { return a.checkpoint < b.checkpoint; });
  const auto line = [](std::string_view name, const std::string& text) {
    fmt::print("{:<12} {}\n", name, text);
  };
  line(
      "model",
      fmt::format("{} ({}), {} parameters, {}", config.model.name, config.model.has_encoder() ? "red" : "dec",
                  count_text(model::num_parameters(config.model)), name_of(config.train.precision)));
  line("layout", fmt::format("{}: {} ranks, {} thread(s) each", memory.layout.to_string(),
                             memory.ranks.size(), config.train.threads));
  line("step", fmt::format("{} {}: on each of {} data ranks {} micro-batches of {}",
                           config.train.global_batch, samples_text(config.data), memory.layout.data,
                           plan.num_micro_batches, config.train.micro_batch));
  line("bubble",
       fmt::format(
           "{:.1f} % of the step under {}, where only FLOPs take time; heaviest stage {:.2f} x the mean",
           100.0 * plan.bubble, name_of(config.pipeline_schedule), memory.placement.imbalance()));
  line("memory", fmt::format("{} on rank {}, the largest; {} on all ranks", bytes_text(most.memory.total()),
                             rank_of(memory.layout, most.at), bytes_text(memory.total())));
  line("checkpoint", fmt::format("{}, of which a rank writes up to {}", bytes_text(memory.checkpoint_bytes()),
                                 bytes_text(writer.checkpoint)));
  print_stages(plan);
}

ordered_json bytes_json(const train::MemoryUse& use) {
  ordered_json json;
  for (const train::MemoryPart& part : train::kMemoryParts) {
    std::string key(part.name);
    std::replace(key.begin(), key.end(), ' ', '_');
    json[key] = use.*part.bytes;
  }
  return json;
}

ordered_json rank_json(const MemoryPlan& plan, const RankPlan& rank) {
  return {{"rank", rank_of(plan.layout, rank.at)},
          {"stage", rank.at.stage},
          {"data", rank.at.data},
          {"tensor", rank.at.tensor},
          {"parameters", rank.parameters},
          {"memory", bytes_json(rank.memory)},
          {"logits", rank.logits},
          {"num_bytes", rank.memory.total()},
          {"checkpoint_bytes", rank.checkpoint}};
}

ordered_json stage_json(const Plan& plan, int stage) {
  ordered_json chunks;
  for (std::size_t i = 0; i < plan.memory.slots.size(); ++i) {
    const parallel::StagePlacement& at = plan.memory.placement.stages[i];
    if (at.stage != stage) continue;
    chunks.push_back({{"encoder_layers", {at.encoder_begin, at.encoder_end}},
                      {"decoder_layers", {at.decoder_begin, at.decoder_end}},
                      {"in_flight", plan.memory.slots[i]}});
  }
  const std::vector<parallel::StagePlacement> held = plan.memory.placement.chunks_of(stage);
  return {{"stage", stage},
          {"chunks", chunks},
          {"holds_embedding", parallel::hold_embedding(held)},
          {"has_head", parallel::own_embedding(held)},
          {"flops_share", flops_share(plan, stage)},
          {"in_flight", num_slots(plan.memory, stage)},
          {"largest_rank", rank_of(plan.memory.layout, plan.memory.largest_of_stage(stage).at)},
          {"num_bytes",
           sum_over_stage(plan.memory, stage, [](const RankPlan& rank) { return rank.memory.total(); })},
          {"checkpoint_bytes", sum_over_stage(plan.memory, stage, checkpoint_of)}};
}

void print_json(const Plan& plan) {
  const config::RunConfig& config = plan.config;
  const MemoryPlan& memory = plan.memory;
  const parallel::Layout& layout = memory.layout;
  ordered_json json = {{"model", config.model.name},
                       {"kind", config.model.has_encoder() ? "red" : "dec"},
                       {"parameters", model::num_parameters(config.model)},
                       {"dtype", name_of(config.train.precision)},
                       {"num_ranks", memory.ranks.size()},
                       {"layout",
                        {{"data", layout.data},
                         {"tensor", layout.tensor},
                         {"encoder_stages", layout.encoder_stages},
                         {"decoder_stages", layout.decoder_stages},
                         {"sequence_parallel", layout.sequence_parallel}}},
                       {"schedule", name_of(config.pipeline_schedule)},
                       {"virtual_stages", config.num_chunks()},
                       {"recompute", name_of(config.train.recompute)},
                       {"threads", config.train.threads},
                       {"window", config.data.window},
                       {"global_batch", config.train.global_batch},
                       {"micro_batch", config.train.micro_batch},
                       {"micro_batches", plan.num_micro_batches},
                       {"bubble", plan.bubble},
                       {"imbalance", memory.placement.imbalance()},
                       {"largest_rank", rank_of(layout, memory.largest().at)},
                       {"largest_rank_bytes", memory.largest().memory.total()},
                       {"num_bytes", memory.total()},
                       {"checkpoint_bytes", memory.checkpoint_bytes()}};
  for (int stage = 0; stage < layout.num_stages(); ++stage) json["stages"].push_back(stage_json(plan, stage));
  for (const RankPlan& rank : memory.ranks) json["ranks"].push_back(rank_json(memory, rank));
  if (plan.roofline) json["roofline"] = roofline_json(*plan.roofline);
  fmt::print("{}\n", json.dump());
}

}  // namespace

int run_plan(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  config::Loaded loaded = config::load(line.sources());
  const Plan plan = make_plan(loaded, line.has("roofline") ? &specs_of(line.get("roofline", "")) : nullptr);
  if (line.has("json")) {
    print_json(plan);
  } else {
    print_table(plan);
    if (plan.roofline)
      print_roofline(*plan.roofline, plan.config, static_cast<int>(plan.memory.ranks.size()));
  }
  return 0;
}

}  // namespace red::launch

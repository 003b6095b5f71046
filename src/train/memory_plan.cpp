#include "train/memory_plan.hpp"

#include <algorithm>

#include "checkpoint/shard_copy.hpp"
#include "device/stream.hpp"
#include "model/stage_parameters.hpp"
#include "optim/adafactor.hpp"
#include "optim/tied_embedding.hpp"
#include "optim/whole_gradients.hpp"
#include "train/checkpoint_shards.hpp"
#include "train/step_scalars.hpp"

namespace red::train {
namespace {

std::size_t bytes_of(const std::vector<checkpoint::Shard>& shards) {
  std::size_t total = 0;
  for (const checkpoint::Shard& shard : shards)
    total += static_cast<std::size_t>(shard.num_rows * shard.num_cols) * size_of(shard.tensor.dtype);
  return total;
}

/// Everything that ranks of one stage and tensor index have in common.
class RankKind {
 public:
  RankKind(const EngineOptions& options, const MemoryPlan& plan, int stage, int tensor, int num_threads,
           const std::vector<model::StageOptions>& stage_plans)
      : options_(options),
        plan_(plan),
        chunks_(plan.placement.chunks_of(stage)),
        tensor_({plan.layout.tensor, tensor}, plan.layout.sequence_parallel),
        store_(model::stage_parameters(options.model, chunks_), tensor_.at(), options.train, options.dtype,
               Memory::counted) {
    common_.at = {.stage = stage, .tensor = tensor};
    common_.memory.scalars = StepScalars::count_bytes(options.model);
    count_stages(num_threads, stage_plans);
    count_parameters();
  }

  /// What differs by data rank follows from its rows.
  RankPlan rank(int data) const {
    RankPlan rank = common_;
    rank.at.data = data;
    if (!options_.train) return rank;
    const std::vector<optim::ParameterShard> shards = shards_at(data);
    optim::AdafactorMemory adafactor(options_.optimizer, shards);
    rank.memory.masters = optim::ParameterShards::count_master_bytes(shards);
    rank.memory.optimizer = adafactor.count_bytes();
    rank.memory.op_scratch = std::max(rank.memory.op_scratch, adafactor.scratch_bytes());
    rank.memory.tied_embedding =
        optim::TiedEmbedding::count_bytes(optim::embedding_of(shards), plan_.placement.embedding_holders,
                                          plan_.placement.embedding_owner, rank.at.stage);
    const std::vector<checkpoint::Shard> written = written_shards(shards, adafactor.states, place(data));
    rank.checkpoint = bytes_of(written);
    if (options_.checkpoint_copy) rank.memory.checkpoint_copy = checkpoint::copy_bytes(written);
    return rank;
  }

 private:
  optim::ShardPlace place(int data) const { return {plan_.layout.data, data, common_.at.tensor}; }
  std::vector<optim::ParameterShard> shards_at(int data) const {
    return optim::shards_of(store_, parallel::own_embedding(chunks_), place(data));
  }

  void count_parameters() {
    MemoryUse& use = common_.memory;
    use.parameters = store_.value_bytes();
    use.gradients = store_.gradient_bytes();
    for (const model::StoredParameter& p : store_.parameters()) common_.parameters += p.region.size();
    if (!options_.train) return;
    if (tensor_.sequence_parallel()) use.whole_gradients = optim::WholeGradients::count_bytes(store_);
    use.buckets = optim::ParameterShards::count_bytes(shards_at(0), plan_.layout.data, options_.buckets);
  }

  void count_stages(int num_threads, std::vector<model::StageOptions> stage_plans) {
    Stream unused(1, 0, GemmChoice::plain);  // a stage wants one; nothing runs on it
    for (model::StageOptions& stage_plan : stage_plans) stage_plan.memory = Memory::counted;
    const model::StageGroup counted(unused, options_.model, chunks_, tensor_, store_, stage_plans);
    const model::StageMemory memory = counted.memory();
    common_.memory.activations = memory.slots;
    common_.memory.recomputed = memory.recomputed;
    common_.memory.temporaries = memory.work;
    common_.memory.rope = memory.rope;
    common_.memory.cache = memory.cache;
    common_.memory.op_scratch = counted.scratch_bytes(num_threads);
    common_.logits = memory.logits;
  }

  const EngineOptions& options_;
  const MemoryPlan& plan_;
  std::vector<parallel::StagePlacement> chunks_;
  model::TensorAxis tensor_;
  model::ParameterStore store_;
  RankPlan common_;
};

bool uses_less(const RankPlan& a, const RankPlan& b) {
  return a.memory.total() < b.memory.total();
}

}  // namespace

MemoryPlan plan_memory(const EngineOptions& options, const parallel::Layout& layout, int num_threads) {
  MemoryPlan plan;
  plan.layout = layout;
  plan.placement = placement_of(options, layout);
  plan.slots.resize(plan.placement.stages.size());
  plan.ranks.resize(layout.num_ranks());
  const parallel::PipelineShape shape = pipeline_shape(options, layout, 1);
  std::vector<parallel::Program> programs(layout.num_stages());
  if (options.train) programs = training_programs(options, layout);
  for (int stage = 0; stage < layout.num_stages(); ++stage) {
    const std::vector<model::StageOptions> stage_plans = stage_options(options, programs[stage]);
    for (int chunk = 0; chunk < options.virtual_stages; ++chunk)
      plan.slots[shape.virtual_stage(stage, chunk)] = stage_plans[chunk].num_slots;
    for (int tensor = 0; tensor < layout.tensor; ++tensor) {
      const RankKind kind(options, plan, stage, tensor, num_threads, stage_plans);
      for (int data = 0; data < layout.data; ++data)
        plan.ranks[rank_of(layout, {stage, data, tensor})] = kind.rank(data);
    }
  }
  return plan;
}

const RankPlan& MemoryPlan::largest() const {
  return *std::max_element(ranks.begin(), ranks.end(), uses_less);
}

const RankPlan& MemoryPlan::largest_of_stage(int stage) const {
  const auto per_stage = static_cast<std::ptrdiff_t>(layout.data) * layout.tensor;
  const auto begin = ranks.begin() + stage * per_stage;
  return *std::max_element(begin, begin + per_stage, uses_less);
}

std::size_t MemoryPlan::total() const {
  std::size_t sum = 0;
  for (const RankPlan& rank : ranks) sum += rank.memory.total();
  return sum;
}

std::size_t MemoryPlan::checkpoint_bytes() const {
  std::size_t sum = 0;
  for (const RankPlan& rank : ranks) sum += rank.checkpoint;
  return sum;
}

std::string bytes_text(std::size_t num_bytes) {
  constexpr std::array<std::string_view, 4> units = {"KiB", "MiB", "GiB", "TiB"};
  if (num_bytes < 1024) return fmt::format("{} B", num_bytes);
  auto value = static_cast<double>(num_bytes) / 1024.0;
  std::size_t unit = 0;
  for (; value >= 1023.95 && unit + 1 < units.size(); ++unit) value /= 1024.0;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string short_form(const MemoryPlan& plan) {
  const RankPlan& most = plan.largest();
  std::string text = fmt::format("memory: {} on rank {}, the largest of {}:", bytes_text(most.memory.total()),
                                 rank_of(plan.layout, most.at), plan.ranks.size());
  const char* separator = " ";
  for (const MemoryPart& part : kMemoryParts) {
    const std::size_t num_bytes = most.memory.*part.bytes;
    if (num_bytes < most.memory.total() / 1000) continue;
    text += fmt::format("{}{} {}", separator, part.name, bytes_text(num_bytes));
    separator = ", ";
  }
  return text + fmt::format("; {} in all, a checkpoint {}", bytes_text(plan.total()),
                            bytes_text(plan.checkpoint_bytes()));
}

}  // namespace red::train

#include "optim/adafactor.hpp"

#include <algorithm>

#include "ops/elementwise.hpp"
#include "ops/reduce.hpp"
#include "ops/update_scalars.hpp"

namespace red::optim {
namespace {

Tensor scalar(const Tensor& t, int64_t row, int64_t col = 0) {
  return t.row_range(row, 1).col_range(col, 1);
}

}  // namespace

AdafactorMemory::AdafactorMemory(const AdafactorConfig& config, const std::vector<ParameterShard>& shards) {
  for (const ParameterShard& shard : shards) {
    if (!shard.owned) continue;
    const model::ParameterSpec& spec = shard.parameter->spec;
    const bool factored = config.factored && std::min(spec.rows, spec.cols) >= config.min_dim_to_factor;
    states.push_back({&shard, factored, {}, {}, {}});
  }
}

std::size_t AdafactorMemory::count_bytes() {
  Arena counted = Arena::counting();
  allocate(counted);
  return counted.peak();
}

std::size_t AdafactorMemory::scratch_bytes() const {
  std::size_t most = 0;
  for (const AdafactorState& state : states) {
    const int64_t rows = state.shard->rows.count, cols = state.shard->parameter->region.num_cols;
    const std::size_t elsewhere = Arena::rounded(static_cast<std::size_t>(cols) * sizeof(double));
    most = std::max({most, ops::sum_of_squares_scratch_bytes(rows * cols),
                     state.factored ? elsewhere + ops::adafactor_factored_scratch_bytes(rows, cols)
                                    : ops::adafactor_scratch_bytes(rows, cols)});
  }
  return most;
}

void AdafactorMemory::allocate(Arena& arena) {
  const auto count = static_cast<int64_t>(states.size());
  for (AdafactorState& state : states) {
    const int64_t rows = state.shard->rows.count, cols = state.shard->parameter->region.num_cols;
    if (state.factored) {
      state.v_row = arena.allocate(rows, 1);
      state.v_col = arena.allocate(cols, 1);
    } else {
      state.v = arena.allocate(rows, cols);
    }
  }
  sum_u2_p2 = arena.allocate<double>(count, 2);
  row_total = arena.allocate<double>(count, 1);
  unused = arena.allocate<double>(1, 1);
  allocate_factored(arena);
}

void AdafactorMemory::allocate_factored(Arena& arena) {
  const auto cut_by_columns = [](const AdafactorState& state) {
    return state.shard->parameter->spec.cut == model::TensorCut::columns;
  };
  int64_t num_cols = 0, num_rows = 0;
  num_partial_rows = 0;
  for (const AdafactorState& state : states) {
    if (!state.factored) continue;
    num_cols += state.shard->parameter->spec.cols;
    num_rows += state.v_row.rows;
    if (cut_by_columns(state)) num_partial_rows += state.v_row.rows;
  }
  col_sums = arena.allocate<double>(num_cols, 1);
  row_sums = arena.allocate<double>(num_rows, 1);
  row_sum.assign(states.size(), {});
  col_sum.assign(states.size(), {});
  int64_t col = 0, partial_row = 0, whole_row = num_partial_rows;
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (!states[i].factored) continue;
    const auto& [spec, region, weight] = *states[i].shard->parameter;
    col_sum[i] = col_sums.row_range(col + region.col_begin, region.num_cols);
    col += spec.cols;
    int64_t& row = cut_by_columns(states[i]) ? partial_row : whole_row;
    row_sum[i] = row_sums.row_range(row, states[i].v_row.rows);
    row += states[i].v_row.rows;
  }
}

Adafactor::Adafactor(Stream& stream, const AdafactorConfig& config, const ParameterShards& shards,
                     const parallel::Mesh& mesh)
    : stream_(stream),
      rule_{config.epsilon1, config.epsilon2, config.clip_threshold},
      mesh_(mesh),
      memory_(config, shards.shards()),
      arena_("optimizer state", memory_.count_bytes()) {
  memory_.allocate(arena_);
}

void Adafactor::reduce(parallel::Communicator& ranks, const Tensor& sums, const char* what) {
  if (ranks.size() == 1 || sums.rows == 0) return;
  parallel::Request request = ranks.all_reduce(sums, parallel::ReduceOp::sum);
  ranks.wait(request, what);
}

void Adafactor::update_factored_statistics(const ops::AdafactorScalars& scalars) {
  ops::fill(stream_, memory_.col_sums, 0.0F);
  ops::fill(stream_, memory_.row_total, 0.0F);
  for (std::size_t i = 0; i < memory_.states.size(); ++i) {
    if (!memory_.states[i].factored) continue;
    const ArenaScope scope(stream_.scratch());
    const Tensor elsewhere = stream_.scratch().allocate<double>(memory_.col_sum[i].rows, 1);
    const Tensor& col_sum = memory_.states[i].shard->counted ? memory_.col_sum[i] : elsewhere;
    ops::adafactor_factored_sums(stream_, memory_.row_sum[i], col_sum, memory_.states[i].shard->gradient,
                                 scalars, rule_);
  }
  reduce(mesh_.stage(), memory_.col_sums, "all-reduce of Adafactor's column sums");
  reduce(mesh_.tensor(), memory_.row_sums.row_range(0, memory_.num_partial_rows),
         "all-reduce of Adafactor's row sums");
  for (std::size_t i = 0; i < memory_.states.size(); ++i) {
    const AdafactorState& state = memory_.states[i];
    if (!state.factored) continue;
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    const bool counted = spec.cut == model::TensorCut::rows || mesh_.at().tensor == 0;
    ops::adafactor_factored_update(stream_, state.v_row, memory_.row_sum[i], spec.cols,
                                   counted ? scalar(memory_.row_total, i) : memory_.unused, scalars);
    ops::adafactor_factored_update(stream_, state.v_col, memory_.col_sum[i], spec.rows, memory_.unused,
                                   scalars);
  }
  reduce(mesh_.stage(), memory_.row_total, "all-reduce of Adafactor's row totals");
}

void Adafactor::update(const Tensor& step_scalars) {
  const ops::AdafactorScalars scalars{
      scalar(step_scalars, ops::scalar_gradient_scale), scalar(step_scalars, ops::scalar_decay),
      scalar(step_scalars, ops::scalar_learning_rate), scalar(step_scalars, ops::scalar_apply)};
  if (memory_.col_sums.rows != 0) update_factored_statistics(scalars);
  ops::fill(stream_, memory_.sum_u2_p2, 0.0F);
  for (std::size_t i = 0; i < memory_.states.size(); ++i) {
    const AdafactorState& state = memory_.states[i];
    const ParameterShard& shard = *state.shard;
    const Tensor u2 = shard.counted ? scalar(memory_.sum_u2_p2, i, 0) : memory_.unused;
    const Tensor p2 = shard.counted ? scalar(memory_.sum_u2_p2, i, 1) : memory_.unused;
    if (state.factored) {
      ops::adafactor_factored_accumulate(stream_, shard.gradient, shard.weight, state.v_row, state.v_col,
                                         scalar(memory_.row_total, i), shard.parameter->spec.rows, u2, p2,
                                         scalars);
    } else {
      ops::adafactor_accumulate(stream_, state.v, shard.gradient, shard.weight, u2, p2, scalars, rule_);
    }
  }
  reduce(mesh_.stage(), memory_.sum_u2_p2, "all-reduce of Adafactor's RMS");
  for (std::size_t i = 0; i < memory_.states.size(); ++i) {
    const AdafactorState& state = memory_.states[i];
    const ParameterShard& shard = *state.shard;
    const model::ParameterSpec& spec = shard.parameter->spec;
    const Tensor u2 = scalar(memory_.sum_u2_p2, i, 0), p2 = scalar(memory_.sum_u2_p2, i, 1);
    if (state.factored) {
      ops::adafactor_factored_apply(stream_, shard.weight, shard.gradient, state.v_row, state.v_col,
                                    scalar(memory_.row_total, i), spec.rows, u2, p2, spec.size(), scalars,
                                    rule_);
    } else {
      ops::adafactor_apply(stream_, shard.weight, shard.gradient, state.v, u2, p2, spec.size(), scalars,
                           rule_);
    }
  }
}

}  // namespace red::optim

#include "optim/adafactor.hpp"

#include <algorithm>

#include "ops/elementwise.hpp"
#include "ops/update_scalars.hpp"

namespace red::optim {
namespace {

Tensor scalar(const Tensor& t, int64_t row, int64_t col = 0) {
  return t.row_range(row, 1).col_range(col, 1);
}

}  // namespace

Adafactor::Adafactor(Stream& stream, const AdafactorConfig& config, const ParameterShards& shards,
                     const parallel::Mesh& mesh)
    : stream_(stream),
      config_(config),
      rule_{config.epsilon1, config.epsilon2, config.clip_threshold},
      mesh_(mesh) {
  for (const ParameterShard& shard : shards.shards()) {
    if (!shard.owned) continue;
    const model::ParameterSpec& spec = shard.parameter->spec;
    const bool factored = config.factored && std::min(spec.rows, spec.cols) >= config.min_dim_to_factor;
    states_.push_back({&shard, factored, {}, {}, {}});
  }
  Arena counted = Arena::counting();
  allocate(counted);
  memory_ = Arena("optimizer state", counted.peak());
  allocate(memory_);
}

void Adafactor::allocate(Arena& arena) {
  const auto count = static_cast<int64_t>(states_.size());
  for (AdafactorState& state : states_) {
    const int64_t rows = state.shard->rows.count, cols = state.shard->parameter->region.num_cols;
    if (state.factored) {
      state.v_row = arena.allocate(rows, 1);
      state.v_col = arena.allocate(cols, 1);
    } else {
      state.v = arena.allocate(rows, cols);
    }
  }
  sum_u2_p2_ = arena.allocate<double>(count, 2);
  row_total_ = arena.allocate<double>(count, 1);
  unused_ = arena.allocate<double>(1, 1);
  allocate_factored(arena);
}

void Adafactor::allocate_factored(Arena& arena) {
  const auto cut_by_columns = [](const AdafactorState& state) {
    return state.shard->parameter->spec.cut == model::TensorCut::columns;
  };
  int64_t num_cols = 0, num_rows = 0;
  num_partial_rows_ = 0;
  for (const AdafactorState& state : states_) {
    if (!state.factored) continue;
    num_cols += state.shard->parameter->spec.cols;
    num_rows += state.v_row.rows;
    if (cut_by_columns(state)) num_partial_rows_ += state.v_row.rows;
  }
  col_sums_ = arena.allocate<double>(num_cols, 1);
  row_sums_ = arena.allocate<double>(num_rows, 1);
  row_sum_.assign(states_.size(), {});
  col_sum_.assign(states_.size(), {});
  int64_t col = 0, partial_row = 0, whole_row = num_partial_rows_;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (!states_[i].factored) continue;
    const auto& [spec, region, weight] = *states_[i].shard->parameter;
    col_sum_[i] = col_sums_.row_range(col + region.col_begin, region.num_cols);
    col += spec.cols;
    int64_t& row = cut_by_columns(states_[i]) ? partial_row : whole_row;
    row_sum_[i] = row_sums_.row_range(row, states_[i].v_row.rows);
    row += states_[i].v_row.rows;
  }
}

void Adafactor::reduce(parallel::Communicator& ranks, const Tensor& sums, const char* what) {
  if (ranks.size() == 1 || sums.size() == 0) return;
  parallel::Request request = ranks.all_reduce(sums, parallel::ReduceOp::sum);
  ranks.wait(request, what);
}

void Adafactor::update_factored_statistics(const ops::AdafactorScalars& scalars) {
  ops::fill(stream_, col_sums_, 0.0F);
  ops::fill(stream_, row_total_, 0.0F);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (!states_[i].factored) continue;
    const ArenaScope scope(stream_.scratch());
    const Tensor elsewhere = stream_.scratch().allocate<double>(col_sum_[i].rows, 1);
    const Tensor& col_sum = states_[i].shard->counted ? col_sum_[i] : elsewhere;
    ops::adafactor_factored_sums(stream_, row_sum_[i], col_sum, states_[i].shard->gradient, scalars, rule_);
  }
  reduce(mesh_.stage(), col_sums_, "all-reduce of Adafactor's column sums");
  reduce(mesh_.tensor(), row_sums_.row_range(0, num_partial_rows_), "all-reduce of Adafactor's row sums");
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const AdafactorState& state = states_[i];
    if (!state.factored) continue;
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    const bool counted = spec.cut == model::TensorCut::rows || mesh_.at().tensor == 0;
    ops::adafactor_factored_update(stream_, state.v_row, row_sum_[i], spec.cols,
                                   counted ? scalar(row_total_, i) : unused_, scalars);
    ops::adafactor_factored_update(stream_, state.v_col, col_sum_[i], spec.rows, unused_, scalars);
  }
  reduce(mesh_.stage(), row_total_, "all-reduce of Adafactor's row totals");
}

void Adafactor::update(const Tensor& step_scalars) {
  const ops::AdafactorScalars scalars{
      scalar(step_scalars, ops::scalar_gradient_scale), scalar(step_scalars, ops::scalar_decay),
      scalar(step_scalars, ops::scalar_learning_rate), scalar(step_scalars, ops::scalar_apply)};
  if (col_sums_.size() != 0) update_factored_statistics(scalars);
  ops::fill(stream_, sum_u2_p2_, 0.0F);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const AdafactorState& state = states_[i];
    const ParameterShard& shard = *state.shard;
    const Tensor u2 = shard.counted ? scalar(sum_u2_p2_, i, 0) : unused_;
    const Tensor p2 = shard.counted ? scalar(sum_u2_p2_, i, 1) : unused_;
    if (state.factored) {
      ops::adafactor_factored_accumulate(stream_, shard.gradient, shard.weight, state.v_row, state.v_col,
                                         scalar(row_total_, i), shard.parameter->spec.rows, u2, p2, scalars);
    } else {
      ops::adafactor_accumulate(stream_, state.v, shard.gradient, shard.weight, u2, p2, scalars, rule_);
    }
  }
  reduce(mesh_.stage(), sum_u2_p2_, "all-reduce of Adafactor's RMS");
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const AdafactorState& state = states_[i];
    const ParameterShard& shard = *state.shard;
    const model::ParameterSpec& spec = shard.parameter->spec;
    const Tensor u2 = scalar(sum_u2_p2_, i, 0), p2 = scalar(sum_u2_p2_, i, 1);
    if (state.factored) {
      ops::adafactor_factored_apply(stream_, shard.weight, shard.gradient, state.v_row, state.v_col,
                                    scalar(row_total_, i), spec.rows, u2, p2, spec.size(), scalars, rule_);
    } else {
      ops::adafactor_apply(stream_, shard.weight, shard.gradient, state.v, u2, p2, spec.size(), scalars,
                           rule_);
    }
  }
}

}  // namespace red::optim

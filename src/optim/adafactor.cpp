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
                     parallel::Communicator& data)
    : stream_(stream),
      config_(config),
      rule_{config.epsilon1, config.epsilon2, config.clip_threshold},
      data_(data) {
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
  int64_t factored_cols = 0;
  for (AdafactorState& state : states_) {
    const int64_t rows = state.shard->rows.count, cols = state.shard->parameter->spec.cols;
    if (state.factored) {
      state.v_row = arena.allocate(rows, 1);
      state.v_col = arena.allocate(cols, 1);
      factored_cols += cols;
    } else {
      state.v = arena.allocate(rows, cols);
    }
  }
  sum_u2_p2_ = arena.allocate<double>(count, 2);
  row_total_ = arena.allocate<double>(count, 1);
  col_sums_ = arena.allocate<double>(factored_cols, 1);
  row_sum_.assign(states_.size(), {});
  col_sum_.assign(states_.size(), {});
  int64_t col = 0;
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (!states_[i].factored) continue;
    const int64_t cols = states_[i].v_col.rows;
    row_sum_[i] = arena.allocate<double>(states_[i].v_row.rows, 1);
    col_sum_[i] = col_sums_.row_range(col, cols);
    col += cols;
  }
}

void Adafactor::reduce(const Tensor& sums, const char* what) {
  if (data_.size() == 1 || sums.size() == 0) return;
  parallel::Request request = data_.all_reduce(sums, parallel::ReduceOp::sum);
  data_.wait(request, what);
}

void Adafactor::update_factored_statistics(const ops::AdafactorScalars& scalars) {
  ops::fill(stream_, col_sums_, 0.0F);
  ops::fill(stream_, row_total_, 0.0F);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    if (!states_[i].factored) continue;
    ops::adafactor_factored_sums(stream_, row_sum_[i], col_sum_[i], states_[i].shard->gradient, scalars,
                                 rule_);
  }
  reduce(col_sums_, "all-reduce of Adafactor's column sums");
  const ArenaScope scope(stream_.scratch());
  const Tensor unused = stream_.scratch().allocate<double>(1, 1);
  for (std::size_t i = 0; i < states_.size(); ++i) {
    const AdafactorState& state = states_[i];
    if (!state.factored) continue;
    const model::ParameterSpec& spec = state.shard->parameter->spec;
    ops::adafactor_factored_update(stream_, state.v_row, row_sum_[i], spec.cols, scalar(row_total_, i),
                                   scalars);
    ops::fill(stream_, unused, 0.0F);
    ops::adafactor_factored_update(stream_, state.v_col, col_sum_[i], spec.rows, unused, scalars);
  }
  reduce(row_total_, "all-reduce of Adafactor's row totals");
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
    const Tensor u2 = scalar(sum_u2_p2_, i, 0), p2 = scalar(sum_u2_p2_, i, 1);
    if (state.factored) {
      ops::adafactor_factored_accumulate(stream_, shard.gradient, shard.weight, state.v_row, state.v_col,
                                         scalar(row_total_, i), shard.parameter->spec.rows, u2, p2, scalars);
    } else {
      ops::adafactor_accumulate(stream_, state.v, shard.gradient, shard.weight, u2, p2, scalars, rule_);
    }
  }
  reduce(sum_u2_p2_, "all-reduce of Adafactor's RMS");
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

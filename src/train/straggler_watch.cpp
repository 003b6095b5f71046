#include "train/straggler_watch.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/log.hpp"
#include "checkpoint/exchange.hpp"
#include "model/cost_model.hpp"
#include "parallel/star.hpp"

namespace red::train {
namespace {

constexpr std::size_t kPhases = kOwnPhaseNames.size();
constexpr std::size_t kColumns = kPhases + 1;

std::vector<std::string> gather_hosts(parallel::Communicator& world) {
  std::vector<std::string> hosts(world.size());
  std::istringstream lines(
      checkpoint::join_lines(world, fmt::format("{} {}\n", world.rank(), parallel::host_name())));
  int rank = 0;
  std::string host;
  while (lines >> rank >> host) hosts.at(static_cast<std::size_t>(rank)) = host;
  return hosts;
}

}  // namespace

std::vector<int> groups_of_peers(const parallel::Layout& layout, const model::ModelConfig& model) {
  const bool even = model.num_heads % layout.tensor == 0 && model.d_ff % layout.tensor == 0;
  std::vector<int> groups(layout.num_ranks());
  for (int rank = 0; rank < layout.num_ranks(); ++rank) {
    const parallel::Coordinates at = coordinates_of(layout, rank);
    groups[rank] = even ? at.stage : at.stage * layout.tensor + at.tensor;
  }
  return groups;
}

StragglerWatch::StragglerWatch(Engine& engine, int64_t every, std::function<void()> before_log)
    : engine_(engine),
      every_(engine.mesh().world().size() > 1 ? every : 0),
      before_log_(std::move(before_log)),
      judge_(groups_of_peers(engine.mesh().layout(), engine.options().model)) {
  if (every_ == 0) return;
  hosts_ = gather_hosts(engine.mesh().world());
  ranks_.resize(hosts_.size());
  rows_.resize(hosts_.size() * kColumns);
  own_.work = 0.0;
}

void StragglerWatch::add(int64_t step, std::span<const data::MicroBatch> batches, double step_s,
                         double waited_s) {
  if (every_ == 0) return;
  static constexpr std::array phases = {Phase::data, Phase::forward, Phase::backward, Phase::optimizer};
  static_assert(phases.size() + 1 == kPhases);
  double other = step_s - waited_s - engine_.timer().stream_waited();
  for (std::size_t p = 0; p < phases.size(); ++p) {
    const double seconds = std::max(0.0, engine_.timer().seconds(phases[p]));
    own_.phase_s[p] += seconds;
    other -= seconds;
  }
  own_.phase_s.back() += std::max(0.0, other);
  for (const data::MicroBatch& batch : batches)
    own_.work += model::training_flops(engine_.options().model, model::work_of(batch));
  step_s_ += step_s;
  if (++num_steps_ == every_) end_window(step);
}

void StragglerWatch::gather() {
  parallel::Communicator& world = engine_.mesh().world();
  double* row = rows_.data() + static_cast<std::size_t>(world.rank()) * kColumns;
  for (std::size_t p = 0; p < kPhases; ++p) row[p] = own_.phase_s[p] / static_cast<double>(num_steps_);
  row[kPhases] = own_.work;
  const auto columns = static_cast<int64_t>(kColumns);
  parallel::Request request =
      world.all_gather(make_tensor(rows_.data(), world.size(), columns), make_tensor(row, 1, columns));
  world.wait(request, "all-gather of every rank's times");
  for (std::size_t r = 0; r < ranks_.size(); ++r) {
    std::copy_n(rows_.data() + r * kColumns, kPhases, ranks_[r].phase_s.begin());
    ranks_[r].work = rows_[r * kColumns + kPhases];
  }
}

void StragglerWatch::end_window(int64_t step) {
  gather();
  const std::vector<Straggler> before = judge_.named();
  judge_.judge(ranks_, step_s_ / static_cast<double>(num_steps_));
  report(step, before);
  own_ = {};
  own_.work = step_s_ = 0.0;
  num_steps_ = 0;
  described_ = false;
}

std::string StragglerWatch::name_of(int rank) const {
  const parallel::Coordinates at = coordinates_of(engine_.mesh().layout(), rank);
  return fmt::format("rank {} on {} (stage {}, data {}, tensor {})", rank, hosts_[rank], at.stage, at.data,
                     at.tensor);
}

/// When somebody becomes slow, and when that is over.
void StragglerWatch::report(int64_t step, const std::vector<Straggler>& before) {
  const auto is_among = [](const std::vector<Straggler>& list, int rank) {
    return std::any_of(list.begin(), list.end(), [&](const Straggler& s) { return s.rank == rank; });
  };
  for (const Straggler& s : judge_.named()) {
    if (is_among(before, s.rank)) continue;
    before_log_();
    log::warning("step {}: {} is slow: {:.4g} s of its own a step, {} {:.4g} s; most of the difference in {}",
                 step, name_of(s.rank), s.own_s, s.by_past ? "by its own past and the others'" : "its peers",
                 s.expected_s, kOwnPhaseNames[s.phase]);
  }
  for (const Straggler& s : before) {
    if (is_among(judge_.named(), s.rank)) continue;
    before_log_();
    log::info("step {}: {} is no longer slow", step, name_of(s.rank));
  }
}

void StragglerWatch::describe(StepMetrics& metrics) {
  if (every_ == 0) return;
  for (const Straggler& s : judge_.named())
    metrics.stragglers.push_back(
        {s.rank, hosts_[s.rank], std::string(kOwnPhaseNames[s.phase]), s.own_s, s.expected_s});
  if (std::exchange(described_, true)) return;
  for (const OwnTimes& times : ranks_) metrics.rank_own_s.push_back(times.total());
}

}  // namespace red::train

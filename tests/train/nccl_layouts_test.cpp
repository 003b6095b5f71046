// Whole steps on the CUDA backend, over the fakes: what ranks compute that talk over NCCL, against the same
// layout staged through MPI, with and without overlap, and against one rank: every layout of up to eight
// ranks, of six and eight with sequence parallelism of RedLLMs and without of DecLLMs, and both of both where
// REDLLM_NCCL_LAYOUTS=all. From three ranks on the harness's three orders of streams share the layouts out,
// unless it is all. Prints a table:
//   ctest --preset release -V -R train_nccl_layouts | grep '|'
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <string_view>
#include <tuple>

#include "parallel/checked_communicator.hpp"
#include "parallel/nccl_communicator.hpp"
#include "parallel/staged_communicator.hpp"
#include "train/device_steps.hpp"

namespace red::test {
namespace {

using parallel::PipelineSchedule;

// Where more than two numbers are added, NCCL adds in another order, in fp32 for gradients and activations.
constexpr double kLoss = 1e-5, kGradient = 1e-4;  // relative; the gradient's to its rank's norm
// Against one rank, as layouts_test.cpp has them: the norm before the first step, and behind it; in bf16
// ranks that share no product round apart where weights do.
constexpr double kFirstNorm = 2e-5, kLaterNorm = 1e-4;
constexpr double kLossBf16 = 3e-3, kNormBf16 = 2e-3;

using Case = StepCase;

/// What no list of layouts has: other schedules, bf16.
/// {data, tensor, encoder stages, decoder stages, sequence parallelism}
std::vector<Case> chosen_cases(int num_ranks) {
  using model::Kind;
  using model::Precision;
  constexpr auto interleaved = PipelineSchedule::interleaved, zb_h1 = PipelineSchedule::zero_bubble_h1;
  switch (num_ranks) {
    case 2:
      return {{Kind::dec, {1, 1, 0, 2, false}, interleaved},
              {Kind::dec, {2, 1, 0, 1, false}, {}, Precision::bf16}};
    case 4:
      return {{Kind::red, {1, 1, 2, 2, false}, interleaved}};
    case 8:
      return {{Kind::red, {1, 1, 3, 5, false}, zb_h1}};
    default:
      return {};
  }
}

bool all_are_wished() {
  const char* const wish = std::getenv("REDLLM_NCCL_LAYOUTS");
  return wish != nullptr && std::string_view(wish) == "all";
}

/// Fewer ranks, and seven, have both ways of tensor ranks.
bool is_run(model::Kind kind, const parallel::Layout& layout, int num_ranks) {
  const bool one_way = layout.tensor == 1 || layout.sequence_parallel == (kind == model::Kind::red);
  return (num_ranks != 6 && num_ranks != 8) || one_way || all_are_wished();
}

/// Whether the case of this number is run in the order of streams that this process has: two ranks run all in
/// each order, as a GPU does, which has its own; others each in one, a layout of other ranks in another.
bool is_of_this_order(std::size_t index, int num_ranks) {
  const char* const order = std::getenv("CUDA_ON_CPU_STREAMS");
  if (order == nullptr || num_ranks < 3 || all_are_wished()) return true;
  constexpr std::string_view orders[] = {"lazy", "random", "eager"};
  return orders[(index + static_cast<std::size_t>(num_ranks)) % 3] == order;
}

/// Fewer with many ranks, which take turns on the cores.
int micro_batches(int num_ranks) {
  return num_ranks > 4 ? 2 : 3;
}

/// In the second step updated rows arrive from other data ranks.
int num_steps(const Case& which, int num_ranks) {
  return num_ranks > 4 && which.layout.data == 1 ? 1 : 2;
}

std::vector<Case> cases(int num_ranks) {
  std::vector<Case> result = chosen_cases(num_ranks);
  for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
    model::ModelConfig large = small_config(kind).model;
    large.encoder_layers = kind == model::Kind::red ? num_ranks : 0;
    large.decoder_layers = large.num_heads = num_ranks;
    for (const parallel::Layout& layout : layouts(num_ranks, large)) {
      if (is_run(kind, layout, num_ranks)) result.push_back({kind, layout});
    }
  }
  for (Case& which : result) which.micro_batches = micro_batches(num_ranks);
  return result;
}

/// One of each axis, and of several; bf16, also of gradients on their way, and the other schedules.
std::vector<Case> overlap_cases(int num_ranks) {
  using model::Kind;
  using model::Precision;
  switch (num_ranks) {
    case 2:
      return {{Kind::red, {2, 1, 0, 1, false}},
              {Kind::dec, {1, 2, 0, 1, true}},
              {Kind::red, {1, 1, 1, 1, false}},
              {Kind::red, {2, 1, 0, 1, false}, {}, Precision::bf16},
              {Kind::red, {2, 1, 0, 1, false}, {}, Precision::fp32, 3, DType::bf16},
              {Kind::dec, {1, 1, 0, 2, false}, PipelineSchedule::interleaved}};
    case 4:
      return {{Kind::red, {2, 1, 1, 1, false}},
              {Kind::dec, {2, 1, 0, 2, false}, PipelineSchedule::zero_bubble_h1, Precision::bf16}};
    case 8:
      return {{Kind::red, {2, 2, 1, 1, true}}};
    default:
      return {};
  }
}

class NcclLayoutsTest : public testing::Test {
 protected:
  Outcome over_nccl(config::RunConfig config, bool overlap, int steps) {
    config.transport.overlap = overlap;
    parallel::NcclOptions options;
    options.overlap = overlap;
    parallel::CheckedCommunicator world(
        std::make_unique<parallel::NcclCommunicator>(mpi_.world(), mpi_.context(), stream_, options));
    return train_tiny(config, world, stream_, steps);
  }

  /// Rank 0 alone, while the others wait for it in their next step: losses and norms are every rank's.
  const Outcome& alone(config::RunConfig config, int steps) {
    config.parallel = {};
    config.pipeline_schedule = PipelineSchedule::one_forward_one_backward;
    const auto& m = config.model;
    Outcome& outcome = alone_by_size_[{m.encoder_layers, m.decoder_layers, m.num_heads,
                                       config.train.global_batch, steps, config.train.precision}];
    if (outcome.losses.empty()) {
      parallel::StagedCommunicator world(*alone_, stream_);
      outcome = train_tiny(config, world, stream_, steps);
    }
    return outcome;
  }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};

 private:
  using Size = std::tuple<int64_t, int64_t, int64_t, int64_t, int, model::Precision>;

  std::unique_ptr<parallel::Communicator> alone_ = mpi_.world().split(mpi_.world().rank(), 0, "alone");
  std::map<Size, Outcome> alone_by_size_;  // an encoder's layers tell the kind
};

double worst(const std::vector<double>& got, const std::vector<double>& expected) {
  double error = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) error = std::max(error, std::abs(got[i] / expected[i] - 1.0));
  return error;
}

/// The distance of all tensors together, relative to their norm.
double distance(const std::vector<std::vector<float>>& got, const std::vector<std::vector<float>>& expected) {
  double errors = 0.0, squares = 0.0;
  for (std::size_t t = 0; t < got.size(); ++t) {
    for (std::size_t i = 0; i < got[t].size(); ++i) {
      errors += std::pow(static_cast<double>(got[t][i]) - expected[t][i], 2);
      squares += std::pow(static_cast<double>(expected[t][i]), 2);
    }
  }
  return squares == 0.0 ? 0.0 : std::sqrt(errors / squares);
}

/// How far a layout's run is from one rank's, whose gradients it holds in pieces: their norm shows it.
struct FromOneRank {
  double loss, first_norm, later_norm;
};
FromOneRank from_one_rank(const Outcome& got, const Outcome& expected) {
  return {worst(got.losses, expected.losses), worst({got.norms.front()}, {expected.norms.front()}),
          worst(got.norms, expected.norms)};
}

void expect_that_of_one_rank(const FromOneRank& got, model::Precision precision) {
  const bool bf16 = precision == model::Precision::bf16;
  EXPECT_LT(got.loss, bf16 ? kLossBf16 : kLoss);
  EXPECT_LT(got.first_norm, bf16 ? kNormBf16 : kFirstNorm);
  EXPECT_LT(got.later_norm, bf16 ? kNormBf16 : kLaterNorm);
}

TEST_F(NcclLayoutsTest, StepsAreThoseOfStagingAndOfOneRank) {
  std::size_t index = 0;
  for (const Case& which : cases(mpi_.size())) {
    if (!is_of_this_order(index++, mpi_.size())) continue;
    SCOPED_TRACE(which.layout.to_string());
    const config::RunConfig config = tiny_config(which);
    const int steps = num_steps(which, mpi_.size());
    const Outcome got = over_nccl(config, true, steps);
    parallel::StagedCommunicator staged(mpi_.world(), stream_);
    const Outcome expected = train_tiny(config, staged, stream_, steps);
    if (mpi_.size() == 2) expect_same(got, expected);  // the order of two addends is nothing
    const double loss = worst(got.losses, expected.losses), norm = worst(got.norms, expected.norms);
    const double gradients = distance(got.gradients, expected.gradients);
    EXPECT_LT(loss, kLoss);
    EXPECT_LT(norm, kGradient);
    EXPECT_LT(gradients, kGradient);
    EXPECT_LT(distance(got.parameters, expected.parameters), kGradient);
    if (mpi_.world().rank() != 0) continue;
    const FromOneRank apart = from_one_rank(got, alone(config, steps));
    expect_that_of_one_rank(apart, which.precision);
    fmt::print(
        "| {} | {:<70} | loss {:.1e} | norm {:.1e} | gradients {:.1e} | one rank: loss {:.1e} | norm "
        "{:.1e}, later {:.1e} |\n",
        which.kind == model::Kind::red ? "red" : "dec", which.layout.to_string(), loss, norm, gradients,
        apart.loss, apart.first_norm, apart.later_norm);
  }
}

TEST_F(NcclLayoutsTest, OverlapChangesNoBit) {
  const std::vector<Case> some = overlap_cases(mpi_.size());
  if (some.empty()) GTEST_SKIP() << "cases are of two, four and eight ranks";
  std::size_t index = 0;
  for (const Case& which : some) {
    if (!is_of_this_order(index++, mpi_.size())) continue;
    SCOPED_TRACE(which.layout.to_string());
    const config::RunConfig config = tiny_config(which);
    const Outcome with = over_nccl(config, true, 2), without = over_nccl(config, false, 2);
    expect_same(with, without);
    for (const double norm : without.norms) EXPECT_GT(norm, 0.0);
  }
}

}  // namespace
}  // namespace red::test

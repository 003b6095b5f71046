// Adafactor over the shards of 1, 2 and 4 data ranks against T5X's own rule in float32: parameters after each
// step and the state after the last. 1e-6 relative in the norm: both sides round in fp32.
#include <gtest/gtest.h>

#include <cmath>

#include "golden/golden_engine.hpp"
#include "ops/update_scalars.hpp"
#include "optim/adafactor.hpp"
#include "parallel/device_communicator.hpp"
#include "support/backend.hpp"
#include "support/golden_file.hpp"

namespace red::test {
namespace {

constexpr double kTolerance = 1e-6;

std::vector<model::ParameterSpec> specs_of(const GoldenTensors& tensors) {
  std::vector<model::ParameterSpec> specs;
  for (const auto& [name, tensor] : tensors) {
    specs.push_back({name, tensor.rows, tensor.cols, tensor.cols == 1 ? 0.0 : 1.0});
  }
  return specs;
}

void assign(const Tensor& to, const GoldenMatrix& from) {
  set_elements(to, std::vector<float>(from.values.begin(), from.values.end()));
}

double global_norm(const GoldenTensors& tensors) {
  double squares = 0.0;
  for (const auto& [name, tensor] : tensors) {
    for (const double x : tensor.values) squares += x * x;
  }
  return std::sqrt(squares);
}

/// Relative error in the norm of rows [begin, begin + got.rows) of `expected`, cols = got.cols.
double error(const Tensor& got, int64_t begin, const std::vector<double>& expected) {
  double difference = 0.0, norm = 0.0;
  const std::vector<float> values = elements_of<float>(got);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double e = expected[begin * got.cols + i];
    difference += (values[i] - e) * (values[i] - e);
    norm += e * e;
  }
  return difference == 0.0 ? 0.0 : std::sqrt(difference / std::max(norm, 1e-300));
}

/// T5X names its statistics by the length of the dims, we by rows and columns: v_row is the mean over the
/// columns.
const std::vector<double>& row_statistic(const GoldenTensors& state, const model::ParameterSpec& spec,
                                         bool of_rows) {
  const bool rows_are_longer = spec.rows > spec.cols;
  return state.at(of_rows == rows_are_longer ? "v_col" : "v_row").values;
}

class GoldenAdafactorTest : public testing::Test {
 protected:
  void follow(const std::string& mode, const GoldenAdafactor& golden) {
    Stream stream(1);
    const auto world = parallel::device_communicator(mpi_, stream, {});
    const parallel::Mesh mesh({mpi_.size(), 1, 0, 1}, *world, {});
    model::ParameterStore store(specs_of(golden.initial), {}, true);
    optim::ParameterShards shards(stream, store, true, mesh, {16 << 10});
    optim::AdafactorConfig config;
    config.factored = mode == "factored";
    optim::Adafactor adafactor(stream, config, shards, mesh);
    for (const auto& p : store.parameters()) assign(p.weight.value, golden.initial.at(p.spec.name));
    const ExpectNccl updates_over_nccl(mpi_.size());
    std::vector<double> s(ops::kStepScalars);
    const DeviceArray<double> scalars(s);
    for (std::size_t t = 0; t < golden.rates.size(); ++t) {
      const GoldenTensors& gradients = golden.gradients.at(t);
      // Every rank gives a share of the gradient, so that the sum is the whole.
      for (const auto& p : store.parameters()) assign(p.weight.gradient, gradients.at(p.spec.name));
      shards.reduce();
      const double norm = global_norm(gradients);
      const double clip = mode == "unfactored_clipped_globally" && norm > 1.0 ? 1.0 / norm : 1.0;
      s[ops::scalar_gradient_scale] = clip / mpi_.size();
      s[ops::scalar_decay] = 1.0 - std::pow(static_cast<double>(t + 1), -config.decay);
      s[ops::scalar_learning_rate] = golden.rates[t];
      s[ops::scalar_apply] = 1.0;
      set_elements(scalars.tensor(ops::kStepScalars, 1), s);
      adafactor.update(scalars.tensor(ops::kStepScalars, 1));
      shards.begin_gather();
      shards.finish_gather();
      const auto expected = golden.parameters.find(static_cast<int>(t) + 1);
      if (expected == golden.parameters.end()) continue;
      for (const auto& p : store.parameters()) {
        EXPECT_LT(error(p.weight.value, 0, expected->second.at(p.spec.name).values), kTolerance)
            << p.spec.name << " after step " << t + 1;
      }
    }
    for (const optim::AdafactorState& state : adafactor.states()) {
      const model::ParameterSpec& spec = state.shard->parameter->spec;
      const GoldenTensors& expected = golden.state.at(spec.name);
      const int64_t begin = state.shard->rows.begin;
      if (state.factored) {
        EXPECT_LT(error(state.v_row, begin, row_statistic(expected, spec, true)), kTolerance) << spec.name;
        EXPECT_LT(error(state.v_col, 0, row_statistic(expected, spec, false)), kTolerance) << spec.name;
      } else {
        EXPECT_LT(error(state.v, begin, expected.at("v").values), kTolerance) << spec.name;
      }
    }
  }

  parallel::MpiEnvironment mpi_;
};

TEST_F(GoldenAdafactorTest, EveryModeEveryStep) {
  for (const auto& file : golden_files("adafactor")) {
    for (const auto& [mode, golden] : read_golden_adafactor(file)) {
      SCOPED_TRACE(fmt::format("{}: {}", file.filename().string(), mode));
      follow(mode, golden);
    }
  }
}

}  // namespace
}  // namespace red::test

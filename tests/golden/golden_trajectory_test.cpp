// Forty training steps against float64: loss normalised over the whole batch, clipping, schedule and
// Adafactor together, in every layout of the ranks at hand; of most layouts the first ten.
#include <gtest/gtest.h>

#include <cstdlib>

#include "device/buffer.hpp"
#include "golden/golden_engine.hpp"
#include "optim/learning_rate.hpp"

namespace red::test {
namespace {

constexpr double kLoss = 1e-5;  // relative, at every step; fp32 against float64
constexpr double kNorm = 1e-4;  // relative; a norm sees every element's error, a loss only the sum's
// Relative, in the norm of a parameter after all steps. Adafactor's first step is the sign of the gradient,
// so elements whose gradient is zero but for rounding may go either way.
constexpr double kParameters = 1e-3;

struct Tolerance {
  double loss, norm, parameters;
};
constexpr Tolerance kFp32{kLoss, kNorm, kParameters};
// Roundings of 2^-9 that grow with the steps, the loss' by half.
constexpr Tolerance kBf16{1e-2, 1e-1, 1e-1};

/// Of a run's steps, how many are followed in the layout of this number: all in each fourth one, the first
/// ones in the others; on a GPU that is a CPU in disguise only those, as each takes a second, and one run to
/// its end (golden_cuda_trajectory_whole_test). REDLLM_GOLDEN_STEPS overrules it. Parameters are compared at
/// the end.
std::size_t steps_to_follow(std::size_t all, std::size_t layout) {
  const char* text = std::getenv("REDLLM_GOLDEN_STEPS");
  if (text != nullptr) return std::min<std::size_t>(all, std::strtoul(text, nullptr, 10));
  if (!on_cpu()) return std::min<std::size_t>(all, 3);
  return layout % 4 == 0 ? all : std::min<std::size_t>(all, 10);
}

class GoldenTrajectoryTest : public testing::Test {
 protected:
  parallel::MpiEnvironment& mpi() { return mpi_; }

  void follow(const GoldenTrajectory& golden, std::size_t number, const parallel::Layout& layout, Form form,
              DType dtype = DType::fp32) {
    const Tolerance& tolerance = dtype == DType::fp32 ? kFp32 : kBf16;
    GoldenEngine golden_engine(mpi(), layout, golden.model, golden.z_loss, golden.optimizer, golden.steps,
                               golden.parameters, dtype);
    const std::size_t num_steps = steps_to_follow(golden.steps.size(), number);
    for (std::size_t i = 0; i < num_steps; ++i) {
      const double rate = optim::learning_rate(golden.schedule, static_cast<int64_t>(i) + 1);
      EXPECT_NEAR(rate, golden.learning_rate[i], 1e-12);
      const auto batches = golden_engine.deal(golden.steps[i], form);
      const std::size_t buffers = num_buffers_made();
      const train::StepResult result = golden_engine.engine().train_step(batches, rate);
      if (i >= 2) {
        EXPECT_EQ(num_buffers_made(), buffers) << "memory is asked for in step " << i + 1;
      }
      EXPECT_NEAR(result.loss / golden.loss[i], 1.0, tolerance.loss) << "step " << i + 1;
      EXPECT_NEAR(result.gradient_norm / golden.gradient_norm[i], 1.0, tolerance.norm) << "step " << i + 1;
      EXPECT_TRUE(result.applied);
    }
    if (num_steps < golden.steps.size()) return;
    const auto errors = golden_engine.errors(golden.final_parameters, 1.0, 0.0,
                                             [](const optim::ParameterShard& shard) { return shard.weight; });
    for (const auto& [name, error] : errors) EXPECT_LT(error, tolerance.parameters) << name;
  }

 private:
  parallel::MpiEnvironment mpi_;
};

TEST_F(GoldenTrajectoryTest, EveryStepOfEveryRun) {
  for (const auto& path : golden_files("trajectory")) {
    const GoldenTrajectory golden = read_golden_trajectory(path);
    std::size_t number = 0;
    for (const parallel::Layout& layout : layouts_for(mpi().size(), golden.model)) {
      for (const Form form : {Form::one_micro_batch, Form::one_example_each}) {
        SCOPED_TRACE(
            fmt::format("{} on {}, form {}", golden.name, layout.to_string(), static_cast<int>(form)));
        follow(golden, number, layout, form);
      }
      ++number;
    }
  }
}

TEST_F(GoldenTrajectoryTest, EveryRunInBf16) {
  for (const auto& path : golden_files("trajectory")) {
    const GoldenTrajectory golden = read_golden_trajectory(path);
    std::size_t number = 0;
    for (const parallel::Layout& layout : layouts_for(mpi().size(), golden.model)) {
      SCOPED_TRACE(fmt::format("{} on {}", golden.name, layout.to_string()));
      follow(golden, number++, layout, Form::one_micro_batch, DType::bf16);
    }
  }
}

}  // namespace
}  // namespace red::test

// Checkpoints cross between the two backends: what redllm-cuda (over the fakes) wrote, redllm goes on from,
// evaluates and continues text with, and the other way round; and what either loads and saves again has the
// same digest.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

using nlohmann::json;

const std::string kCpu = RED_BINARY_DIR "/redllm", kCuda = RED_CUDA_PROGRAM;

class CheckpointExchange : public testing::Test {
 protected:
  CheckpointExchange() { copy_good_inputs(folder_.path()); }

  /// Each rank has a GPU of its own.
  ChildResult run(const std::string& program, std::vector<std::string> arguments, int ranks = 1) const {
    std::vector<std::string> command{"/usr/bin/env", "CUDA_ON_CPU_DEVICES=4", "RED_GEMM_CACHE=off"};
    if (ranks > 1)
      command.insert(command.end(), {RED_SOURCE_DIR "/launch/local.sh", "-n", std::to_string(ranks)});
    command.push_back(program);
    for (std::string& argument : arguments) command.push_back(std::move(argument));
    ChildResult result = run_child(command, folder_.path(), 200);
    if (RED_WITH_NCCL && ranks > 1 && (program == kCuda || program == RED_SAVE_AGAIN_CUDA)) {
      EXPECT_NE(result.err.find("ranks exchange GPU memory over NCCL"), std::string::npos) << result.err;
    }
    return result;
  }
  /// Up to this step, from the run's newest checkpoint.
  void train(const std::string& program, const std::string& run_dir, int steps,
             const std::string& precision = "fp32") const {
    train_on(1, program, run_dir, steps, "--parallel.data=1", precision);
  }
  void train_on(int ranks, const std::string& program, const std::string& run_dir, int steps,
                const std::string& layout, const std::string& precision = "fp32") const {
    const ChildResult result = run(
        program,
        {"train", "--config=run.ini", "--train.run_dir=" + run_dir, fmt::format("--train.steps={}", steps),
         "--schedule.kind=constant", "--train.precision=" + precision, "--optimizer.factored=yes",
         "--optimizer.min_dim_to_factor=16", layout},
        ranks);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  std::vector<json> metrics(const std::string& run_dir) const {
    std::vector<json> lines;
    std::istringstream in(read_bytes(folder_.path() / run_dir / "metrics.jsonl"));
    for (std::string line; std::getline(in, line);) {
      json parsed = json::parse(line);
      if (parsed.contains("loss")) lines.push_back(std::move(parsed));
    }
    return lines;
  }

  /// Relative tolerances. fp32, sums in another order: 3e-7 was seen of the loss.
  struct Close {
    double loss = 1e-5, norm = 1e-4;
  };
  void expect_same_steps(const std::string& straight, const std::string& other, std::size_t steps,
                         const Close& close) const {
    const std::vector<json> expected = metrics(straight), mixed = metrics(other);
    ASSERT_EQ(expected.size(), steps);
    ASSERT_EQ(mixed.size(), steps);
    for (std::size_t i = 0; i < steps; ++i) {
      SCOPED_TRACE(i + 1);
      EXPECT_EQ(mixed[i].at("sample_digest"), expected[i].at("sample_digest"));
      const double loss = expected[i].at("loss");
      EXPECT_NEAR(mixed[i].at("loss").get<double>(), loss, close.loss * loss);
      const double norm = expected[i].at("gradient_norm");
      EXPECT_NEAR(mixed[i].at("gradient_norm").get<double>(), norm, close.norm * norm);
    }
  }

  WorkingDirectory folder_;
};

TEST_F(CheckpointExchange, ARunChangesPrograms) {
  train(kCpu, "straight", 8);
  int steps = 0;
  for (const std::string& program : {kCuda, kCpu, kCuda, kCpu}) train(program, "mixed", steps += 2);
  expect_same_steps("straight", "mixed", 8, {});
}

TEST_F(CheckpointExchange, ARunInBf16ChangesPrograms) {
  train(kCpu, "straight", 4, "bf16");
  train(kCuda, "mixed", 2, "bf16");
  train(kCpu, "mixed", 4, "bf16");
  // Sums in another order are rounded to other neighbours: 8 bits of mantissa.
  expect_same_steps("straight", "mixed", 4, {.loss = 1e-3, .norm = 1e-2});
}

// The optimizer's state is shared out by data ranks, then by stages, and whole in between.
TEST_F(CheckpointExchange, ARunChangesLayoutsToo) {
  train(kCpu, "straight", 6);
  train_on(2, kCuda, "mixed", 2, "--parallel.data=2");
  train(kCpu, "mixed", 4);
  train_on(2, kCuda, "mixed", 6, "--parallel.encoder_stages=1");
  expect_same_steps("straight", "mixed", 6, {});
}

// In every layout of so many ranks, of memory of one kind and of the other in turn.
TEST_F(CheckpointExchange, WhatEitherLoadsAndSavesAgainIsTheSame) {
  for (const std::string kind : {"red", "dec"}) {
    SCOPED_TRACE(kind);
    std::set<std::string> digests;
    std::string from = "new";
    std::size_t count = 0;
    for (const auto& [program, ranks] :
         {std::pair(RED_SAVE_AGAIN_CPU, 2), std::pair(RED_SAVE_AGAIN_CUDA, 4),
          std::pair(RED_SAVE_AGAIN_CPU, 1), std::pair(RED_SAVE_AGAIN_CUDA, 2),
          std::pair(RED_SAVE_AGAIN_CPU, 2), std::pair(RED_SAVE_AGAIN_CUDA, 1)}) {
      const std::string to = fmt::format("{}-{}", kind, count);
      const ChildResult result = run(program, {kind, from, to}, ranks);
      ASSERT_EQ(result.exit_code, 0) << program << " on " << ranks << result.err;
      std::istringstream lines(result.out);
      for (std::string digest; lines >> digest >> from; ++count) digests.insert(digest);
    }
    EXPECT_GT(count, 20U);
    EXPECT_EQ(digests.size(), 1U);
    const ChildResult inspected = run(kCpu, {"inspect", "checkpoint", from, "--digest"});
    EXPECT_NE(inspected.out.find(*digests.begin()), std::string::npos) << inspected.out << inspected.err;
  }
}

TEST_F(CheckpointExchange, EachEvaluatesAndContinuesWhatTheOtherWrote) {
  train(kCpu, "by_cpu", 3);
  train(kCuda, "by_cuda", 3);
  for (const std::string run_dir : {"by_cpu", "by_cuda"}) {
    SCOPED_TRACE(run_dir);
    EXPECT_EQ(run(kCpu, {"inspect", "checkpoint", run_dir, "--verify"}).exit_code, 0);
    EXPECT_EQ(run(kCpu, {"inspect", "checkpoint", run_dir, "--digest"}).out,
              run(kCuda, {"inspect", "checkpoint", run_dir, "--digest"}).out);
    std::vector<json> losses;
    std::vector<std::string> texts;
    for (const std::string& program : {kCpu, kCuda}) {
      const ChildResult evaluated = run(program, {"eval", "perplexity", "--checkpoint", run_dir, "--json"});
      ASSERT_EQ(evaluated.exit_code, 0) << evaluated.err;
      losses.push_back(json::parse(evaluated.out).flatten());
      const ChildResult continued =
          run(program, {"generate", "--checkpoint", run_dir, "--prompt", "the", "--max-tokens", "8"});
      ASSERT_EQ(continued.exit_code, 0) << continued.err;
      texts.push_back(continued.out);
    }
    ASSERT_EQ(losses[0].size(), losses[1].size());
    for (const auto& [name, value] : losses[0].items()) {
      SCOPED_TRACE(name);
      if (value.is_number_float()) {
        // fp32, sums in another order.
        EXPECT_NEAR(losses[1].at(name).get<double>(), value.get<double>(), 1e-5 * value.get<double>());
      } else {
        EXPECT_EQ(losses[1].at(name), value);
      }
    }
    EXPECT_EQ(texts[0], texts[1]);
  }
}

}  // namespace
}  // namespace red::test

// What a step promises in every layout: micro-batches do not matter, the samples do not depend on ranks,
// copies of the tied embedding stay the same, a step that is not finite changes nothing, and nothing is
// allocated.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/count_allocations.hpp"
#include "train/precision.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

class EngineTest : public testing::Test {
 protected:
  EngineTest() { train::agree_on_gemm(mpi_.world(), stream_); }

  parallel::MpiEnvironment mpi_;
  Stream stream_{1};

  struct Setup {
    Setup(parallel::MpiEnvironment& mpi, Stream& stream, const parallel::Layout& layout,
          config::RunConfig run)
        : config((run.parallel = layout, run)),
          mesh(layout, mpi.world(), model::layout_limits(run.model)),
          provider(small_provider(run.model.kind)),
          engine(
              train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}),
              mesh, stream),
          loader(provider, train::decoder_positions(run.model), run.train.global_batch, run.train.micro_batch,
                 layout.data, mesh.at().data) {
      engine.initialize_parameters();
    }
    config::RunConfig config;
    parallel::Mesh mesh;
    data::SyntheticProvider provider;
    train::Engine engine;
    train::BatchLoader loader;
  };

  template <class F>
  void in_every_layout(F f) {
    for (const model::Kind kind : {model::Kind::red, model::Kind::dec}) {
      for (const parallel::Layout& layout : layouts(mpi_.size(), kind)) {
        SCOPED_TRACE(layout.to_string());
        f(kind, layout);
      }
    }
  }
  /// Of which a layer fills a bucket.
  config::RunConfig deep_config() const {
    config::RunConfig config = small_config(model::Kind::dec);
    config.model.d_model = 128;
    config.model.d_ff = 512;
    config.model.num_heads = 16;
    config.model.decoder_layers = 8;
    config.train.bucket_mib = 1;
    config.train.global_batch = 2 * mpi_.size();
    return config;
  }
  void sum(double* values, int64_t count) { reduce(values, count, parallel::ReduceOp::sum); }
  void reduce(double* values, int64_t count, parallel::ReduceOp op) {
    parallel::Request request = mpi_.world().all_reduce(make_tensor(values, count, 1), op);
    mpi_.world().wait(request, "test");
  }
};

// Sums in another order: fp32 rounding, relative to the norm.
TEST_F(EngineTest, OneLargeMicroBatchEqualsManySmall) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    config::RunConfig config = small_config(kind);
    config.train.global_batch = 32;
    std::vector<std::vector<train::StepResult>> results;
    for (const int64_t micro_batch : std::vector<int64_t>{1, 32 / layout.data}) {
      config.train.micro_batch = micro_batch;
      Setup setup(mpi_, stream_, layout, config);
      auto& steps = results.emplace_back();
      for (uint64_t t = 0; t < 3; ++t)
        steps.push_back(setup.engine.train_step(setup.loader.load(32 * t), 0.01));
    }
    for (std::size_t t = 0; t < 3; ++t) {
      EXPECT_NEAR(results[0][t].loss / results[1][t].loss, 1.0, 1e-6) << "step " << t + 1;
      EXPECT_NEAR(results[0][t].gradient_norm / results[1][t].gradient_norm, 1.0, 1e-5) << "step " << t + 1;
      EXPECT_EQ(results[0][t].targets, 32 * kDecoderLength);
    }
  });
}

TEST_F(EngineTest, DigestOfAStepDoesNotDependOnTheRanks) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    const config::RunConfig config = small_config(kind);
    Setup setup(mpi_, stream_, layout, config);
    train::StepReport report(setup.engine, config.model, stream_);
    const auto batches = setup.loader.load(40);
    const train::StepResult result = setup.engine.train_step(batches, 0.01);
    const train::StepMetrics metrics = report.gather(batches, result, 1.0, setup.loader.digest());
    train::BatchLoader alone(setup.provider, train::decoder_positions(config.model),
                             config.train.global_batch, 2, 1, 0);
    alone.load(40);
    EXPECT_EQ(metrics.sample_digest, alone.digest());
    alone.load(41);
    EXPECT_NE(metrics.sample_digest, alone.digest());
  });
}

TEST_F(EngineTest, CopiesOfTheTiedEmbeddingStayTheSameBits) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    config::RunConfig config = small_config(kind);
    config.model.d_model = config.model.d_ff = 12;
    config.model.head_dim = 2;
    config.train.global_batch = layout.data;
    Setup setup(mpi_, stream_, layout, config);
    // Long where most stages have a copy: three of them on four ranks.
    const bool most_copies = layout.encoder_stages == 1 && layout.decoder_stages == mpi_.size() - 1;
    const uint64_t num_steps = most_copies ? 1000 : 50;
    for (uint64_t t = 0; t < num_steps; ++t)
      setup.engine.train_step(setup.loader.load(layout.data * t), 0.01);
    const int64_t d = setup.config.model.d_model, size = kVocabulary * d;
    std::vector<double> most(size, -std::numeric_limits<double>::infinity()), least(size, -most.front());
    if (setup.engine.stages().last().placement().holds_embedding()) {
      const auto& [spec, region, weight] = setup.engine.parameters().find("embedding.weight");
      const float* rows = weight.value.as<float>();
      std::copy_n(rows, region.size(), most.begin() + region.row_begin * d);
      std::copy_n(rows, region.size(), least.begin() + region.row_begin * d);
    }
    reduce(most.data(), static_cast<int64_t>(most.size()), parallel::ReduceOp::max);
    reduce(least.data(), static_cast<int64_t>(least.size()), parallel::ReduceOp::min);
    EXPECT_EQ(most, least);
  });
}

TEST_F(EngineTest, AStepThatIsNotFiniteChangesNothing) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    Setup setup(mpi_, stream_, layout, small_config(kind));
    train::Engine& engine = setup.engine;
    engine.train_step(setup.loader.load(0), 0.01);
    // One rank's loss is poisoned: by an infinite gain, put back afterwards.
    const bool has_gain = engine.stages().has_head(), poisoner = has_gain && setup.mesh.at().data == 0;
    float* gain =
        has_gain ? engine.parameters().find("decoder.final_norm.gain").weight.value.as<float>() : nullptr;
    const float before = has_gain ? *gain : 0.0F;
    if (poisoner) *gain = std::numeric_limits<float>::infinity();
    std::vector<std::vector<float>> saved;
    for (const checkpoint::Shard& shard : engine.checkpoint_shards()) {
      auto& values = saved.emplace_back();
      for (int64_t i = 0; i < shard.num_rows; ++i) {
        const float* row = static_cast<const float*>(shard.data) + i * shard.row_stride;
        values.insert(values.end(), row, row + shard.num_cols);
      }
    }
    EXPECT_FALSE(engine.train_step(setup.loader.load(8), 0.01).applied);
    std::size_t index = 0;
    for (const checkpoint::Shard& shard : engine.checkpoint_shards()) {
      std::vector<float> now;
      for (int64_t i = 0; i < shard.num_rows; ++i) {
        const float* row = static_cast<const float*>(shard.data) + i * shard.row_stride;
        now.insert(now.end(), row, row + shard.num_cols);
      }
      EXPECT_EQ(now, saved[index++]) << shard.tensor.path;
    }
    if (has_gain) *gain = before;  // the other data ranks got the bad row with the rest of the parameters
    EXPECT_TRUE(engine.train_step(setup.loader.load(16), 0.01).applied);
  });
}

TEST_F(EngineTest, TooManySkippedStepsEndTheRunOnAllRanks) {
  SharedFolder folder(mpi_.world());
  config::RunConfig config = small_config(model::Kind::dec);
  config.schedule.peak = 1e30;
  config.schedule.warmup_steps = 0;
  config.train.steps = 40;
  config.train.max_skipped_steps = 2;
  EXPECT_THROW(run(mpi_.world(), {mpi_.size(), 1, 0, 1}, config, folder.path() / "run"), NumericalError);
  folder.barrier();
}

TEST_F(EngineTest, NothingIsAllocatedAfterTheSecondStep) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    Setup setup(mpi_, stream_, layout, small_config(kind));
    const auto step = [&](uint64_t t) { setup.engine.train_step(setup.loader.load(8 * t), 0.01); };
    for (uint64_t t = 0; t < 2; ++t) step(t);
    const std::size_t buffers = num_buffers_made();
    const int64_t news = num_allocations();
    for (uint64_t t = 2; t < 12; ++t) step(t);
    EXPECT_EQ(num_buffers_made(), buffers);
    EXPECT_EQ(num_allocations(), news);
  });
}

// At least half of the gradients have arrived when the backward pass ends, in every step: buckets share two
// staging memories, so all but two of the buckets that were begun have arrived. The embedding and gains, a
// fiftieth of this model, come at the end anyway.
TEST_F(EngineTest, GradientsTravelUnderTheBackwardPass) {
  const config::RunConfig config = deep_config();
  Setup setup(mpi_, stream_, {mpi_.size(), 1, 0, 1}, config);
  for (uint64_t t = 0; t < 3; ++t) {
    setup.engine.train_step(setup.loader.load(config.train.global_batch * t), 0.01);
    EXPECT_GT(setup.engine.shards().hidden_share(), 0.5);
  }
}

// Weights are under way when the next pass begins, and some arrive before their layer comes. Which ones is a
// matter of the machine's load, so one bucket in four passes is enough.
TEST_F(EngineTest, WeightsTravelUnderTheNextForwardPass) {
  if (mpi_.size() == 1) return;
  const config::RunConfig config = deep_config();
  Setup setup(mpi_, stream_, {mpi_.size(), 1, 0, 1}, config);
  const optim::ParameterShards& shards = setup.engine.shards();
  double most = 0.0;
  for (uint64_t t = 0; t < 4; ++t) {
    const auto batches = setup.loader.load(config.train.global_batch * t);
    setup.engine.train_step(batches, 0.01);
    EXPECT_TRUE(shards.gathering());
    setup.engine.gradients(batches, 0.01);
    EXPECT_FALSE(shards.gathering());
    most = std::max(most, shards.gathered_in_time());
  }
  EXPECT_GT(most, 0.0);
}

// Training drops, evaluation does not; and the same elements of a sample whatever micro-batch it is in.
TEST_F(EngineTest, DropoutIsOfTrainingAlone) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    const auto results = [&](double rate, int64_t micro_batch) {
      config::RunConfig config = small_config(kind);
      config.train.dropout = rate;
      config.train.micro_batch = micro_batch;
      Setup setup(mpi_, stream_, layout, config);
      const auto batches = setup.loader.load(0);
      const double loss = setup.engine.gradients(batches, 0.0).loss;
      const std::span<const float> scores = setup.engine.score(batches.front());
      return std::pair(loss, std::vector<float>(scores.begin(), scores.end()));
    };
    const auto without = results(0.0, 1), with = results(0.2, 1), in_one = results(0.2, 8 / layout.data);
    EXPECT_EQ(with.second, without.second);
    EXPECT_GT(std::abs(with.first / without.first - 1.0), 1e-4);
    EXPECT_NEAR(in_one.first / with.first, 1.0, 1e-6);  // fp32 rounding of a sum in another order
  });
}

// One rank sends nothing, so rounds nothing. More round each part and each sum by up to 2^-9; parts may
// cancel, hence 1e-2 of the norm.
TEST_F(EngineTest, GradientsCanTravelAsBf16) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    const auto gradients = [&](DType dtype) {
      config::RunConfig config = small_config(kind);
      config.train.gradient_dtype = dtype;
      Setup setup(mpi_, stream_, layout, config);
      setup.engine.gradients(setup.loader.load(0), 0.01);
      std::vector<double> all;
      for (const optim::ParameterShard& shard : setup.engine.shards().shards()) {
        for (int64_t i = 0; i < shard.gradient.rows; ++i) {
          const float* row = shard.gradient.row_range(i, 1).as<float>();
          all.insert(all.end(), row, row + shard.gradient.cols);
        }
      }
      return all;
    };
    const std::vector<double> whole = gradients(DType::fp32), rounded = gradients(DType::bf16);
    double squares[2] = {0.0, 0.0};
    for (std::size_t i = 0; i < whole.size(); ++i) {
      squares[0] += (rounded[i] - whole[i]) * (rounded[i] - whole[i]);
      squares[1] += whole[i] * whole[i];
    }
    sum(squares, 2);
    EXPECT_LT(std::sqrt(squares[0] / squares[1]), 1e-2);
    EXPECT_EQ(squares[0] > 0.0, layout.data > 1);
  });
}

// Steps too small for bf16 are not lost: masters move, and what layers compute with is their rounded value.
TEST_F(EngineTest, MasterWeightsKeepWhatBf16CannotHold) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    config::RunConfig config = small_config(kind);
    config.train.precision = model::Precision::bf16;
    Setup setup(mpi_, stream_, layout, config);
    const auto masters = [&] {
      std::vector<float> all;
      for (const optim::ParameterShard& shard : setup.engine.shards().shards()) {
        for (int64_t i = 0; i < shard.weight.rows; ++i) {
          for (int64_t j = 0; j < shard.weight.cols; ++j) {
            const float master = shard.weight.row_range(i, 1).as<float>()[j];
            all.push_back(master);
            if (shard.has_master()) {
              EXPECT_EQ(shard.value().row_range(i, 1).as<bf16>()[j].bits, bf16(master).bits);
            }
          }
        }
      }
      return all;
    };
    const std::vector<float> before = masters();
    for (uint64_t t = 0; t < 3; ++t) setup.engine.train_step(setup.loader.load(8 * t), 1e-5);
    const std::vector<float> after = masters();
    std::size_t moved = 0, moved_in_bf16 = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      moved += before[i] != after[i] ? 1 : 0;
      moved_in_bf16 += bf16(before[i]).bits != bf16(after[i]).bits ? 1 : 0;
    }
    EXPECT_GT(moved, before.size() / 2);
    EXPECT_LT(moved_in_bf16, before.size() / 20);
  });
}

TEST_F(EngineTest, RanksAgreeOnThePrecision) {
  using model::Precision;
  const auto settled = [&](Precision wanted, std::optional<Precision> saved) {
    return train::settle_precision(wanted, saved, mpi_.world(), stream_);
  };
  for (const Precision either : {Precision::fp32, Precision::bf16}) {
    EXPECT_EQ(settled(either, std::nullopt), either);
    EXPECT_EQ(settled(either, Precision::fp32), either);
    EXPECT_EQ(settled(Precision::automatic, either), either);
  }
  // The last rank cannot, whatever the others can.
  Stream stream(1, 0, mpi_.world().rank() + 1 == mpi_.size() ? GemmChoice::plain : GemmChoice::automatic);
  EXPECT_EQ(train::settle_precision(Precision::automatic, std::nullopt, mpi_.world(), stream),
            Precision::fp32);
  const Precision automatic = settled(Precision::automatic, std::nullopt);
  EXPECT_EQ(automatic, stream_.gemm().has_bf16_arithmetic() ? Precision::bf16 : Precision::fp32);
}

TEST_F(EngineTest, RanksAgreeOnTheMatrixLibrary) {
  const int rank = mpi_.world().rank();
  Stream stream(1, 0, rank % 2 == 0 ? GemmChoice::plain : GemmChoice::automatic);
  train::agree_on_gemm(mpi_.world(), stream);
  double choices[2] = {static_cast<double>(stream.gemm().choice), -static_cast<double>(stream.gemm().choice)};
  reduce(choices, 2, parallel::ReduceOp::max);
  EXPECT_EQ(choices[0], -choices[1]);
  if (mpi_.size() == 1) {
    EXPECT_EQ(stream.gemm().choice, GemmChoice::plain);
  }
}

TEST_F(EngineTest, KeepsTheMatrixLibraryOfTheCheckpoint) {
  Stream stream(1);
  train::agree_on_gemm(mpi_.world(), stream);
  const GemmChoice chosen = stream.gemm().choice;
  checkpoint::Metadata metadata;
  for (const char* const elsewhere : {"", "auto", "tf32", "another"}) {
    if (*elsewhere != 0) metadata.extra[train::kGemmKey] = elsewhere;
    train::keep_gemm(metadata, mpi_.world(), stream);
    EXPECT_EQ(stream.gemm().choice, chosen) << elsewhere;
  }
  metadata.extra[train::kGemmKey] = "plain";
  train::keep_gemm(metadata, mpi_.world(), stream);
  EXPECT_EQ(stream.gemm().choice, GemmChoice::plain);
}

TEST_F(EngineTest, ParametersOfAllStagesAreTheModel) {
  in_every_layout([&](model::Kind kind, const parallel::Layout& layout) {
    Setup setup(mpi_, stream_, layout, small_config(kind));
    double counted[1] = {0.0};
    for (const optim::ParameterShard& shard : setup.engine.shards().shards()) {
      if (shard.counted) counted[0] += static_cast<double>(shard.weight.size());
    }
    sum(counted, 1);
    EXPECT_EQ(static_cast<int64_t>(counted[0]), model::num_parameters(setup.config.model));
  });
}

}  // namespace
}  // namespace red::test

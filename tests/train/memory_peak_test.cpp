// The plan against the kernel: the resident memory that a training engine adds to its process, for a model
// large enough that nothing else matters. A table: ctest --preset release -V -R train_memory_peak | grep '|'
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "train/memory_plan.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

constexpr double kTolerance = 0.1;  // what a user is promised
constexpr int64_t kWindow = 512;

/// "VmRSS": resident now; "VmHWM": the most since clear_peak().
double resident_mib(const std::string& what) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(what + ":")) return std::stod(line.substr(what.size() + 1)) / 1024.0;
  }
  return 0.0;
}

void clear_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
}

config::RunConfig large_config(const parallel::Layout& layout) {
  config::RunConfig config = small_config(model::Kind::red);
  config.model.vocab_size = 8192;
  config.model.d_model = 512;
  config.model.d_ff = 1536;
  config.model.num_heads = 8;
  config.model.head_dim = 64;
  config.model.encoder_layers = config.model.decoder_layers = 4;
  config.train.head_chunk = 512;
  config.train.bucket_mib = 16;
  config.parallel = layout;
  return config;
}

/// Two steps of full windows, and what a save begins with.
void train_on(const config::RunConfig& config, const data::SampleProvider& provider,
              const train::EngineOptions& options, parallel::Mesh& mesh, Stream& stream) {
  train::Engine engine(options, mesh, stream);
  engine.initialize_parameters();
  train::BatchLoader loader(provider, train::decoder_positions(config.model), config.train.global_batch,
                            config.train.micro_batch, mesh.layout().data, mesh.at().data);
  for (uint64_t step = 0; step < 2; ++step)
    engine.train_step(loader.load(step * static_cast<uint64_t>(config.train.global_batch)), 1e-3);
  engine.copy_checkpoint_shards();
}

class MemoryPeakTest : public testing::Test {
 protected:
  void check(const parallel::Layout& layout) {
    const config::RunConfig config = large_config(layout);
    Stream stream(1, 0);
    parallel::Mesh mesh(layout, mpi_.world(), model::layout_limits(config.model));
    // Once in small, so that what MPI and the matrix library keep for themselves is there before.
    config::RunConfig small = small_config(model::Kind::red);
    small.parallel = layout;
    train_on(small, small_provider(small.model.kind),
             train::training_options(small, {kEncoderLength, kDecoderLength}), mesh, stream);

    const data::SyntheticProvider provider(kWindow / 2, kWindow / 2, config.model.vocab_size, 7);
    const train::EngineOptions options = train::training_options(config, {kWindow / 2, kWindow / 2});
    const train::RankPlan rank = train::plan_memory(options, layout, 1).ranks.at(mpi_.world().rank());
    const double base = resident_mib("VmRSS"), planned = static_cast<double>(rank.memory.total()) / (1 << 20);
    clear_peak();
    train_on(config, provider, options, mesh, stream);
    const double peak = resident_mib("VmHWM"), used = peak - base;
    EXPECT_NEAR(used / planned, 1.0, kTolerance) << used << " MiB of " << planned << " planned";
    EXPECT_NEAR(peak / (base + planned), 1.0, kTolerance);
    std::printf("| %-60s | rank %d | planned %7.1f MiB | used %7.1f | base %6.1f |\n",
                layout.to_string().c_str(), mpi_.world().rank(), planned, used, base);
    std::fflush(stdout);
  }

  parallel::MpiEnvironment mpi_;
};

TEST_F(MemoryPeakTest, IsNearThePlan) {
  if (mpi_.size() == 1) return check({1, 1, 0, 1, false});
  check({4, 1, 0, 1, false});
  check({2, 1, 1, 1, false});
  check({1, 2, 1, 1, true});
  check({1, 1, 1, 3, false});
}

}  // namespace
}  // namespace red::test

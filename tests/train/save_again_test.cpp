// What a layout saved, any other loads and saves again without changing a bit: parameters, optimizer state
// and the place in the data have one digest, whoever wrote them and however.
#include <gtest/gtest.h>

#include "checkpoint/background_saver.hpp"
#include "checkpoint/content_digest.hpp"
#include "train/small_run.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;

class SaveAgainTest : public testing::Test {
 protected:
  /// Loads `from` into an engine of this layout; saves it at once, or behind training.
  void save_again(config::RunConfig config, const parallel::Layout& layout, const fs::path& from,
                  const fs::path& to, bool behind) {
    config.parallel = layout;
    config.checkpoint.async = behind;
    Stream stream(1);
    train::agree_on_gemm(mpi_.world(), stream);
    parallel::Mesh mesh(layout, mpi_.world(), model::layout_limits(config.model));
    const data::SyntheticProvider provider = small_provider(config.model.kind);
    train::Engine engine(
        train::training_options(config, {provider.max_encoder_length(), provider.max_decoder_length()}), mesh,
        stream);
    const checkpoint::Reader reader(from);
    engine.load(reader, true);
    checkpoint::Metadata metadata = reader.metadata();
    metadata.extra = engine.checkpoint_extra();
    metadata.layout = layout.to_string();
    for (const auto& [name, value] : reader.metadata().extra) metadata.extra.emplace(name, value);
    if (!behind) return checkpoint::save(to, metadata, engine.checkpoint_shards(), mpi_.world());
    checkpoint::BackgroundSaver saver(to, {}, mpi_.world());
    saver.begin(metadata, engine.copy_checkpoint_shards());
    engine.initialize_parameters();  // whatever becomes of the engine now
    saver.finish();
    EXPECT_EQ(saver.take_result().value().error, "");
  }

  void check(const config::RunConfig& config) {
    const auto all = layouts(mpi_.size(), config.model);
    const fs::path run_dir = folder_.path() / "run";
    run(mpi_.world(), all.front(), config, run_dir);
    folder_.barrier();
    const fs::path first = checkpoint::find_latest(run_dir / "checkpoints").value();
    const std::string digest = checkpoint::content_digest(checkpoint::Reader(first));
    for (std::size_t i = 0; i < all.size(); ++i) {
      SCOPED_TRACE(all[i].to_string());
      const fs::path to = folder_.path() / fmt::format("again-{}", i);
      save_again(config, all[i], first, to, i % 2 == 0);
      folder_.barrier();
      EXPECT_EQ(checkpoint::content_digest(checkpoint::Reader(checkpoint::find_latest(to).value())), digest);
    }
    folder_.barrier();
  }

  parallel::MpiEnvironment mpi_;
  SharedFolder folder_{mpi_.world()};
};

TEST_F(SaveAgainTest, Unfactored) {
  config::RunConfig config = small_config(model::Kind::red);
  config.train.steps = 2;
  check(config);
}

TEST_F(SaveAgainTest, FactoredAndBf16) {
  config::RunConfig config = small_config(model::Kind::red);
  config.train.steps = 2;
  config.train.precision = model::Precision::bf16;
  config.optimizer.factored = true;
  config.optimizer.min_dim_to_factor = 16;
  check(config);
}

}  // namespace
}  // namespace red::test

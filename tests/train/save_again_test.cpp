// What a layout saved, any other of as many or fewer or more ranks loads and saves again without changing a
// bit: parameters, optimizer state and the place in the data have one digest, whoever wrote them and however.
#include "train/save_again.hpp"

#include <gtest/gtest.h>

#include "checkpoint/content_digest.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;

class SaveAgainTest : public testing::Test {
 protected:
  /// From each layout of all numbers of ranks to the next one.
  void check(const config::RunConfig& config) {
    const fs::path run_dir = folder_.path() / "run";
    run(mpi_.world(), layouts(mpi_.size(), config.model).front(), config, run_dir);
    folder_.barrier();
    fs::path from = checkpoint::find_latest(run_dir / "checkpoints").value();
    const std::string digest = checkpoint::content_digest(checkpoint::Reader(from));
    int count = 0;
    for (int num_ranks = mpi_.size(); num_ranks > 0; --num_ranks) {
      const bool takes_part = mpi_.rank() < num_ranks;
      const auto group = mpi_.world().split(takes_part ? 0 : 1, mpi_.rank(), "group");
      Stream stream(1);
      train::agree_on_gemm(*group, stream);
      for (const parallel::Layout& layout : layouts(num_ranks, config.model)) {
        SCOPED_TRACE(layout.to_string());
        const fs::path to = folder_.path() / fmt::format("again-{}", count);
        if (takes_part) {
          EXPECT_EQ(save_again(*group, stream, config, layout, from, to, count % 2 == 0), "");
        }
        ++count;
        folder_.barrier();
        from = checkpoint::find_latest(to).value();
        EXPECT_EQ(checkpoint::content_digest(checkpoint::Reader(from)), digest);
      }
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

TEST_F(SaveAgainTest, DecoderOnly) {
  config::RunConfig config = small_config(model::Kind::dec);
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

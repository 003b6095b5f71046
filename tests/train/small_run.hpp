// Small models and runs for tests of training on several ranks.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "config/print.hpp"
#include "data/synthetic_provider.hpp"
#include "model/stage_parameters.hpp"
#include "parallel/mpi_environment.hpp"
#include "train/machine.hpp"
#include "train/run_directory.hpp"
#include "train/trainer.hpp"

namespace red::test {

constexpr int64_t kVocabulary = 67, kEncoderLength = 13, kDecoderLength = 11;

/// A model with odd sizes, trained for six steps of 8 samples.
inline config::RunConfig small_config(model::Kind kind) {
  config::RunConfig config;
  model::ModelConfig& m = config.model;
  m.name = "small";
  m.kind = kind;
  m.vocab_size = kVocabulary;
  m.d_model = 24;
  m.d_ff = 40;
  m.num_heads = 5;
  m.head_dim = 8;
  m.encoder_layers = kind == model::Kind::red ? 3 : 0;
  m.decoder_layers = 3;
  config.train.precision = model::Precision::fp32;
  config.train.steps = 6;
  config.train.global_batch = 8;
  config.train.micro_batch = 1;
  config.train.head_chunk = 8;
  config.train.bucket_mib = 1;
  config.schedule.warmup_steps = 2;
  config.schedule.total_steps = 6;
  return config;
}

inline data::SyntheticProvider small_provider(model::Kind kind) {
  return {kind == model::Kind::red ? kEncoderLength : 0, kDecoderLength, kVocabulary, 7};
}

/// Every layout of these ranks for a model, those with tensor ranks with and without sequence parallelism.
inline std::vector<parallel::Layout> layouts(int num_ranks, const model::ModelConfig& model) {
  std::vector<parallel::Layout> result = parallel::legal_layouts(num_ranks, model::layout_limits(model));
  for (std::size_t i = 0, count = result.size(); i < count; ++i) {
    if (result[i].tensor == 1) continue;
    result.push_back(result[i]);
    result.back().sequence_parallel = true;
  }
  return result;
}
inline std::vector<parallel::Layout> layouts(int num_ranks, model::Kind kind) {
  return layouts(num_ranks, small_config(kind).model);
}

/// A folder that all ranks know and that is gone at the end.
class SharedFolder {
 public:
  explicit SharedFolder(parallel::Communicator& world) : world_(world) {
    int32_t id = static_cast<int32_t>(::getpid());
    wait(world.broadcast(make_tensor(&id, 1, 1), 0));
    path_ = std::filesystem::temp_directory_path() / fmt::format("redllm-train-test-{}", id);
    if (world.rank() == 0) {
      std::filesystem::remove_all(path_);
      std::filesystem::create_directories(path_);
    }
    wait(world.barrier());
  }
  ~SharedFolder() {
    std::error_code ignored;
    if (world_.rank() == 0) std::filesystem::remove_all(path_, ignored);
  }
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  void barrier() { wait(world_.barrier()); }

 private:
  void wait(parallel::Request request) { world_.wait(request, "test"); }
  parallel::Communicator& world_;
  std::filesystem::path path_;
};

/// Runs to config.train.steps in `layout`, going on from what the run's folder holds. Returns the last step's
/// loss.
inline double run(parallel::Communicator& world, const parallel::Layout& layout, config::RunConfig config,
                  const std::filesystem::path& run_dir,
                  std::function<std::vector<train::ValidationLoss>(train::Engine&)> validate = {}) {
  config.parallel = layout;
  config.train.run_dir = run_dir;
  config.train.micro_batch =
      std::min<int64_t>(config.train.micro_batch, config.train.global_batch / layout.data);
  Stream stream(1);
  train::agree_on_gemm(world, stream);
  parallel::Mesh mesh(layout, world, model::layout_limits(config.model));
  const data::SyntheticProvider provider = small_provider(config.model.kind);
  config::Loaded loaded;
  loaded.config = config;
  train::Trainer trainer({config, config::print_effective(loaded), provider, "", std::move(validate),
                          train::checkpoint_to_resume(run_dir, config.checkpoint.resume, world)},
                         mesh, stream);
  trainer.run();
  return trainer.last_loss();
}

/// Every tensor of the newest checkpoint of a run, whole, by path.
inline std::map<std::string, std::vector<float>> checkpoint_tensors(const std::filesystem::path& run_dir) {
  const checkpoint::Reader reader(checkpoint::find_latest(run_dir / "checkpoints").value());
  std::map<std::string, std::vector<float>> result;
  for (const checkpoint::LogicalTensor& tensor : reader.tensors()) {
    const int64_t cols = std::max<int64_t>(1, tensor.cols);
    std::vector<float>& values = result[tensor.path];
    values.resize(tensor.rows * cols);
    reader.read({tensor, 0, tensor.rows, 0, cols, values.data(), cols});
  }
  return result;
}

}  // namespace red::test

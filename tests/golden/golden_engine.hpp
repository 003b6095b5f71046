// An engine for a golden file in some layout: its parameters loaded, its examples dealt out to ranks and
// micro-batches.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/check.hpp"
#include "model/stage_parameters.hpp"
#include "parallel/device_communicator.hpp"
#include "support/backend.hpp"
#include "support/golden_file.hpp"
#include "train/engine.hpp"

namespace red::test {

/// How a batch is cut up.
enum class Form {
  one_micro_batch,   ///< all of a rank's examples packed together
  one_example_each,  ///< a micro-batch per example
  from_padded_rows,  ///< as one_micro_batch, out of rows padded to the longest
};

/// Whether REDLLM_GOLDEN_LAYOUTS has this layout among others, as data x tensor x encoder stages x decoder
/// stages: "2x2x0x1 1x1x2x2". If it is not set, it has all.
inline bool is_chosen(const parallel::Layout& l) {
  const char* const chosen = std::getenv("REDLLM_GOLDEN_LAYOUTS");
  const std::string name = fmt::format(" {}x{}x{}x{} ", l.data, l.tensor, l.encoder_stages, l.decoder_stages);
  return chosen == nullptr || fmt::format(" {} ", chosen).find(name) != std::string::npos;
}

/// Every chosen layout of these ranks, those with tensor ranks with and without sequence parallelism.
inline std::vector<parallel::Layout> layouts_for(int num_ranks, const model::ModelConfig& model) {
  std::vector<parallel::Layout> layouts = parallel::legal_layouts(num_ranks, model::layout_limits(model));
  const bool any = !layouts.empty();
  std::erase_if(layouts, [](const parallel::Layout& l) { return !is_chosen(l); });
  RED_CHECK(!any || !layouts.empty(), "REDLLM_GOLDEN_LAYOUTS has no layout of {} ranks", num_ranks);
  for (std::size_t i = 0, count = layouts.size(); i < count; ++i) {
    if (layouts[i].tensor == 1) continue;
    layouts.push_back(layouts[i]);
    layouts.back().sequence_parallel = true;
  }
  return layouts;
}

/// Of those, the ones in which every stage can have so many chunks of layers.
inline std::vector<parallel::Layout> layouts_for(int num_ranks, const model::ModelConfig& model,
                                                 int virtual_stages) {
  std::vector<parallel::Layout> layouts = layouts_for(num_ranks, model);
  if (virtual_stages == 1) return layouts;
  std::erase_if(layouts, [&](const parallel::Layout& l) {
    return l.num_stages() == 1 || l.encoder_stages * virtual_stages > model.encoder_layers ||
           l.decoder_stages * virtual_stages > model.decoder_layers;
  });
  return layouts;
}

/// The examples of data rank `rank` of `num_ranks`: contiguous, as even as can be, perhaps none.
inline std::vector<data::Sample> part_of(const std::vector<data::Sample>& samples, int num_ranks, int rank) {
  const auto count = static_cast<int>(samples.size());
  return {samples.begin() + count * rank / num_ranks, samples.begin() + count * (rank + 1) / num_ranks};
}

std::vector<data::MicroBatch> micro_batches(const std::vector<data::Sample>& samples, Form form);

/// Bytes that the harness' stand-in for NCCL has carried for this rank so far; 0 where it is not linked.
int64_t bytes_over_nccl();

/// At its end fails where REDLLM_GOLDEN_NCCL=yes and nothing was carried by NCCL since its begin, on several
/// ranks.
class ExpectNccl {
 public:
  explicit ExpectNccl(int num_ranks) : num_ranks_(num_ranks), before_(bytes_over_nccl()) {}
  ~ExpectNccl();
  ExpectNccl(const ExpectNccl&) = delete;
  ExpectNccl& operator=(const ExpectNccl&) = delete;

 private:
  int num_ranks_;
  int64_t before_;
};

class GoldenEngine {
 public:
  GoldenEngine(parallel::MpiEnvironment& mpi, const parallel::Layout& layout, const model::ModelConfig& model,
               double z_loss, const optim::AdafactorConfig& optimizer,
               const std::vector<std::vector<data::Sample>>& batches, const GoldenTensors& parameters,
               DType dtype = DType::fp32, int virtual_stages = 1, const model::CacheShape& cache = {});

  train::Engine& engine() { return *engine_; }
  const parallel::Mesh& mesh() const { return mesh_; }
  /// This rank's micro-batches of a global batch.
  std::vector<data::MicroBatch> deal(const std::vector<data::Sample>& batch, Form form) const;

  /// Relative error of every tensor, in its norm, over all ranks: |got - expected| / max(|expected|, floor).
  /// `get` gives a shard's (rows, cols) values; they are multiplied by `scale`.
  template <class Get>
  std::map<std::string, double> errors(const GoldenTensors& expected, double scale, double floor,
                                       Get get) const;

 private:
  Stream stream_{1};
  std::unique_ptr<parallel::Communicator> world_;
  parallel::Mesh mesh_;
  std::unique_ptr<train::Engine> engine_;
  std::unique_ptr<ExpectNccl> steps_over_nccl_;  ///< from here on: what connected the ranks does not count
};

template <class Get>
std::map<std::string, double> GoldenEngine::errors(const GoldenTensors& expected, double scale, double floor,
                                                   Get get) const {
  std::vector<double> squares(expected.size() * 2, 0.0);  // difference, expected; over the owned shards
  for (const optim::ParameterShard& shard : engine_->shards().shards()) {
    if (!shard.counted) continue;
    const auto it = expected.find(shard.parameter->spec.name);
    if (it == expected.end()) continue;
    const auto index = static_cast<std::size_t>(std::distance(expected.begin(), it));
    const Tensor got = get(shard);
    const std::vector<float> values = elements_of<float>(got);
    for (int64_t i = 0; i < got.rows; ++i) {
      for (int64_t j = 0; j < got.cols; ++j) {
        const int64_t col = shard.parameter->region.col_begin + j;
        const double e = it->second.values[(shard.first_row() + i) * it->second.cols + col];
        const double difference = values[i * got.cols + j] * scale - e;
        squares[2 * index] += difference * difference;
        squares[2 * index + 1] += e * e;
      }
    }
  }
  parallel::Communicator& world = mesh_.world();
  parallel::Request request = world.all_reduce(
      make_tensor(squares.data(), static_cast<int64_t>(squares.size()), 1), parallel::ReduceOp::sum);
  world.wait(request, "golden comparison");
  std::map<std::string, double> result;
  std::size_t index = 0;
  for (const auto& [name, tensor] : expected) {
    result[name] = std::sqrt(squares[2 * index]) / std::max(std::sqrt(squares[2 * index + 1]), floor);
    ++index;
  }
  return result;
}

}  // namespace red::test

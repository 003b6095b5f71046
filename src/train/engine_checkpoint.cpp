// What of an engine goes into a checkpoint, and how it comes back: logical names and global rows only, so
// that any layout reads what any other wrote.
#include <algorithm>

#include "checkpoint/open_together.hpp"
#include "ops/elementwise.hpp"
#include "train/checkpoint_shards.hpp"
#include "train/engine.hpp"
#include "train/machine.hpp"

namespace red::train {

std::vector<checkpoint::Shard> Engine::checkpoint_shards() {
  RED_CHECK(options_.train, "only a training engine writes checkpoints");
  complete_weights();
  return written_shards(shards_->shards(), adafactor_->states(),
                        {mesh_.layout().data, mesh_.at().data, mesh_.at().tensor});
}

checkpoint::ShardCopy Engine::copy_checkpoint_shards() {
  return checkpoint::copy_shards(stream_, checkpoint_shards(), checkpoint_memory_);
}

std::map<std::string, std::string> Engine::checkpoint_extra() {
  double updates = 0.0;
  copy_to_host(stream_, &updates, scalars_.updates.data, sizeof(updates));
  stream_.synchronize();
  return {{"updates", fmt::format("{:.0f}", updates)},
          {kGemmKey, std::string(name_of(stream_.gemm().choice))}};
}

namespace {

constexpr const char* kParameters = "parameters/";

std::string path_of(const model::StoredParameter& parameter) {
  return kParameters + parameter.spec.name;
}

constexpr std::size_t kLoadBytes = std::size_t{64} << 20;  ///< host memory that a checkpoint is read through

/// Reads shards that lie in device memory, some rows at a time, in stream order.
class ShardLoader {
 public:
  ShardLoader(const checkpoint::Reader& reader, Stream& stream) : reader_(reader), stream_(stream) {}

  void load(const checkpoint::Shard& shard) {
    const std::size_t element = size_of(shard.tensor.dtype);
    const std::size_t row_bytes = static_cast<std::size_t>(shard.num_cols) * element;
    in_blocks(shard, row_bytes, [&](const checkpoint::Shard& block) {
      const auto* from = static_cast<const std::byte*>(block.data);
      const auto first = static_cast<std::size_t>(block.row_begin - shard.row_begin);
      const auto stride = static_cast<std::size_t>(shard.row_stride) * element;
      std::byte* const to = static_cast<std::byte*>(shard.data) + first * stride;
      const auto num_rows = static_cast<std::size_t>(block.num_rows);
      if (stride == row_bytes) return copy_to_device(stream_, to, from, num_rows * row_bytes);
      for (std::size_t row = 0; row < num_rows; ++row)
        copy_to_device(stream_, to + row * stride, from + row * row_bytes, row_bytes);
    });
  }

  /// All rows of a parameter that this rank holds; rounded where they are held as bf16.
  void load_rounded(const model::StoredParameter& p) {
    const Tensor& value = p.weight.value;
    const checkpoint::Shard shard = shard_of(path_of(p), p, {0, value.rows}, value);
    if (value.dtype == DType::fp32) return load(shard);
    const std::size_t row_bytes = static_cast<std::size_t>(value.cols) * sizeof(float);
    in_blocks(shard, row_bytes, [&](const checkpoint::Shard& block) {
      const std::size_t num_bytes = static_cast<std::size_t>(block.num_rows) * row_bytes;
      if (num_bytes > exact_.num_bytes()) exact_ = Buffer(num_bytes);
      const Tensor exact = make_tensor(reinterpret_cast<float*>(exact_.data()), block.num_rows, value.cols);
      copy_to_device(stream_, exact.data, block.data, num_bytes);
      ops::copy(stream_, value.row_range(block.row_begin - shard.row_begin, block.num_rows), exact);
    });
  }

 private:
  /// use(block) for blocks of the shard's rows that were read into host memory.
  template <class Use>
  void in_blocks(const checkpoint::Shard& shard, std::size_t row_bytes, const Use& use) {
    const auto rows_at_once = static_cast<int64_t>(std::max<std::size_t>(1, kLoadBytes / row_bytes));
    for (int64_t row = 0; row < shard.num_rows; row += rows_at_once) {
      checkpoint::Shard block = shard;
      block.row_begin = shard.row_begin + row;
      block.num_rows = std::min(rows_at_once, shard.num_rows - row);
      const std::size_t num_bytes = static_cast<std::size_t>(block.num_rows) * row_bytes;
      if (num_bytes > host_.num_bytes()) host_ = HostBuffer(num_bytes);
      block.data = host_.data();
      block.row_stride = block.num_cols;
      reader_.read(block);
      use(block);
    }
  }

  const checkpoint::Reader& reader_;
  Stream& stream_;
  HostBuffer host_;
  Buffer exact_;
};

}  // namespace

void Engine::load(const std::filesystem::path& checkpoint, bool optimizer_state) {
  // Who wants tiles whole compares them as they arrive.
  const bool wants_parts = shards_ != nullptr || mesh_.layout().tensor > 1;
  if (!wants_parts) return load(checkpoint::Reader(checkpoint), optimizer_state);
  load(checkpoint::open_together(checkpoint, mesh_.world(), optimizer_state ? "" : kParameters),
       optimizer_state);
}

void Engine::load(const checkpoint::Reader& reader, bool optimizer_state) {
  complete_weights();
  ShardLoader loader(reader, stream_);
  if (shards_) {
    for (const optim::ParameterShard& shard : shards_->shards())
      loader.load(shard_of(path_of(*shard.parameter), *shard.parameter, shard.rows, shard.weight));
    shards_->begin_gather();
    shards_->finish_gather();
  } else {
    for (const model::StoredParameter& p : store_.parameters()) loader.load_rounded(p);
  }
  if (optimizer_state) {
    const auto& extra = reader.metadata().extra;
    const auto updates = extra.find("updates");
    if (updates == extra.end()) throw DataError("checkpoint: the count of optimizer updates is missing");
    const double number = std::stod(updates->second);
    copy_to_device(stream_, scalars_.updates.data, &number, sizeof(number));
    for (const optim::AdafactorState& state : adafactor_->states()) {
      if (state.factored) {
        loader.load(row_statistic(state));
        loader.load(column_statistic(state));
      } else {
        loader.load(shard_of("optimizer/v/" + state.shard->parameter->spec.name, *state.shard->parameter,
                             state.shard->rows, state.v));
      }
    }
  }
  stream_.synchronize();
}

}  // namespace red::train

#include "golden/golden_engine.hpp"

#include <gtest/gtest.h>

#include <string_view>

#include "data/padded.hpp"
#include "support/backend.hpp"

// Of the stand-in for NCCL; null in programs without it.
extern "C" int64_t nccl_bytes_on_cpu() __attribute__((weak));  // NOLINT

namespace red::test {
namespace {

model::BatchShape capacity_of(const std::vector<std::vector<data::Sample>>& batches) {
  model::BatchShape most{1, 1, 1};
  for (const auto& batch : batches) {
    model::BatchShape shape;
    for (const data::Sample& sample : batch) {
      ++shape.sequences;
      shape.encoder_tokens += static_cast<int64_t>(sample.encoder_input.size());
      shape.decoder_tokens += static_cast<int64_t>(sample.decoder_input.size());
    }
    most = {std::max(most.sequences, shape.sequences), std::max(most.encoder_tokens, shape.encoder_tokens),
            std::max(most.decoder_tokens, shape.decoder_tokens)};
  }
  return most;
}

/// (B, width) row-major; entries behind a row's end hold `filler`.
template <class T, class Row>
std::vector<T> padded(const std::vector<data::Sample>& samples, std::size_t width, T filler, Row row) {
  std::vector<T> result(samples.size() * width, filler);
  for (std::size_t i = 0; i < samples.size(); ++i)
    std::copy(row(samples[i]).begin(), row(samples[i]).end(), result.begin() + i * width);
  return result;
}

/// The same samples out of rows that are padded behind their true lengths, with an id that is also a real
/// token and a loss mask that would count.
std::vector<data::Sample> through_padded_rows(const std::vector<data::Sample>& samples) {
  using data::Sample;
  std::vector<int32_t> encoder_lengths, decoder_lengths, prefixes;
  std::size_t encoder_width = 0, decoder_width = 0;
  for (const Sample& s : samples) {
    encoder_lengths.push_back(static_cast<int32_t>(s.encoder_input.size()));
    decoder_lengths.push_back(static_cast<int32_t>(s.decoder_input.size()));
    prefixes.push_back(s.prefix);
    if (!s.encoder_input.empty()) encoder_width = std::max(encoder_width, s.encoder_input.size() + 3);
    decoder_width = std::max(decoder_width, s.decoder_input.size() + 2);
  }
  const bool documents = !samples.front().decoder_document.empty();
  const auto encoder_input = padded<int32_t>(
      samples, encoder_width, 0, [](const Sample& s) -> auto& { return s.encoder_input; });
  const auto decoder_input = padded<int32_t>(
      samples, decoder_width, 0, [](const Sample& s) -> auto& { return s.decoder_input; });
  const auto target = padded<int32_t>(
      samples, decoder_width, 0, [](const Sample& s) -> auto& { return s.decoder_target; });
  const auto mask = padded<uint8_t>(
      samples, decoder_width, 1, [](const Sample& s) -> auto& { return s.loss_mask; });
  const auto encoder_document = padded<int32_t>(
      samples, encoder_width, 0, [](const Sample& s) -> auto& { return s.encoder_document; });
  const auto decoder_document = padded<int32_t>(
      samples, decoder_width, 0, [](const Sample& s) -> auto& { return s.decoder_document; });
  data::PaddedBatch batch;
  batch.encoder_width = static_cast<int64_t>(encoder_width);
  batch.decoder_width = static_cast<int64_t>(decoder_width);
  if (encoder_width > 0) batch.encoder_lengths = encoder_lengths;
  batch.decoder_lengths = decoder_lengths;
  batch.encoder_input = encoder_input;
  batch.decoder_input = decoder_input;
  batch.decoder_target = target;
  batch.loss_mask = mask;
  batch.prefixes = prefixes;
  if (documents) batch.encoder_document = encoder_document;
  if (documents) batch.decoder_document = decoder_document;
  std::vector<Sample> result;
  data::from_padded(batch, samples.front().id, result);
  return result;
}

/// Rows row_begin ... of this rank's part of a parameter.
void assign(const Tensor& out, const model::StoredParameter& p, int64_t row_begin,
            const GoldenMatrix& expected) {
  RED_CHECK(expected.rows == p.spec.rows && expected.cols == p.spec.cols, "{} is ({}, {}) in the golden file",
            p.spec.name, expected.rows, expected.cols);
  std::vector<float> values;
  for (int64_t i = 0; i < out.rows; ++i) {
    const auto row =
        expected.values.begin() + (p.region.row_begin + row_begin + i) * expected.cols + p.region.col_begin;
    values.insert(values.end(), row, row + out.cols);
  }
  if (out.dtype == DType::bf16) {
    set_elements(out, std::vector<bf16>(values.begin(), values.end()));
  } else {
    set_elements(out, values);
  }
}

}  // namespace

int64_t bytes_over_nccl() {
  return nccl_bytes_on_cpu != nullptr ? nccl_bytes_on_cpu() : 0;
}

ExpectNccl::~ExpectNccl() {
  const char* const wish = std::getenv("REDLLM_GOLDEN_NCCL");
  if (wish == nullptr || std::string_view(wish) != "yes" || num_ranks_ == 1) return;
  EXPECT_GT(bytes_over_nccl(), before_) << "nothing went over NCCL";
}

std::vector<data::MicroBatch> micro_batches(const std::vector<data::Sample>& samples, Form form) {
  std::vector<data::MicroBatch> batches;
  if (samples.empty()) return batches;
  if (form == Form::one_example_each) {
    for (const data::Sample& sample : samples) {
      data::pack({&sample, 1}, data::DecoderPositions::after_encoder, batches.emplace_back());
    }
    return batches;
  }
  const std::vector<data::Sample> all =
      form == Form::from_padded_rows ? through_padded_rows(samples) : samples;
  data::pack(all, data::DecoderPositions::after_encoder, batches.emplace_back());
  return batches;
}

GoldenEngine::GoldenEngine(parallel::MpiEnvironment& mpi, const parallel::Layout& layout,
                           const model::ModelConfig& model, double z_loss,
                           const optim::AdafactorConfig& optimizer,
                           const std::vector<std::vector<data::Sample>>& batches,
                           const GoldenTensors& parameters, DType dtype, int virtual_stages,
                           const model::CacheShape& cache)
    : world_(
          parallel::device_communicator(mpi, stream_, {.check = parallel::CallCheck::no})),  // it allocates
      mesh_(layout, *world_, model::layout_limits(model)) {
  train::EngineOptions options;
  options.model = model;
  options.optimizer = optimizer;
  options.dtype = dtype;
  if (virtual_stages > 1) options.schedule = parallel::PipelineSchedule::interleaved;
  options.virtual_stages = virtual_stages;
  options.cache = cache;
  options.capacity = capacity_of(batches);
  options.max_positions = options.capacity.encoder_tokens + options.capacity.decoder_tokens;
  options.max_micro_batches = static_cast<int>(options.capacity.sequences);
  options.head_chunk = 16;  // several chunks, and a rest
  options.z_loss = static_cast<float>(z_loss);
  options.buckets.num_bytes = 64 << 10;  // several buckets
  engine_ = std::make_unique<train::Engine>(options, mesh_, stream_);
  for (const model::StoredParameter& p : engine_->parameters().parameters())
    assign(p.weight.value, p, 0, parameters.at(p.spec.name));
  for (const optim::ParameterShard& shard : engine_->shards().shards()) {
    const model::StoredParameter& p = *shard.parameter;
    if (shard.has_master()) assign(shard.weight, p, shard.rows.begin, parameters.at(p.spec.name));
  }
  steps_over_nccl_ = std::make_unique<ExpectNccl>(mpi.size());
}

std::vector<data::MicroBatch> GoldenEngine::deal(const std::vector<data::Sample>& batch, Form form) const {
  return micro_batches(part_of(batch, mesh_.layout().data, mesh_.at().data), form);
}

}  // namespace red::test

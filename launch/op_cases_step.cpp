#include "launch/op_cases_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "model/parameter.hpp"

namespace red::launch {
namespace {

class StepCases {
 public:
  StepCases(const config::RunConfig& config, const data::SampleLengths& lengths)
      : config_(config),
        lengths_(lengths),
        dtype_(config.train.precision == model::Precision::bf16 ? DType::bf16 : DType::fp32),
        specs_(model::parameter_specs(config.model)),
        matrix_{config.model.d_model, config.model.d_ff} {
    for (const model::ParameterSpec& spec : specs_) {
      all_ += spec.size();
      if (spec.is_gain()) gains_ += spec.size();
      if (config.optimizer.factored && std::min(spec.rows, spec.cols) >= config.optimizer.min_dim_to_factor)
        factored_ += spec.size();
    }
  }

  std::vector<OpCase> make() {
    if (config_.model.has_encoder()) {
      add_boundaries("encoder, ", lengths_.encoder, encoder_pieces(config_) - 1);
      add_memory();
    }
    add_boundaries("decoder, ", lengths_.decoder, decoder_pieces(config_) - 1);
    add_gradients();
    add_optimizer();
    add_weights();
    return std::move(cases_);
  }

 private:
  void add_rows(const std::string& name, int64_t n, int64_t per_micro_batch, OpBuild build) {
    if (per_micro_batch == 0) return;
    cases_.push_back({name, fmt::format("({}, {})", n, config_.model.d_model),
                      static_cast<double>(per_micro_batch), 0.0, std::move(build)});
  }
  /// At the size of one matrix of a layer, as often as so many elements have it.
  void add_elements(const char* name, int64_t elements, OpBuild build) {
    if (elements == 0) return;
    const double times = static_cast<double>(elements) / static_cast<double>(matrix_.rows * matrix_.cols);
    cases_.push_back(
        {name, fmt::format("({}, {})", matrix_.rows, matrix_.cols), 0.0, times, std::move(build)});
  }
  OpBuild copied(DType from, DType to) const { return copies(matrix_.rows, matrix_.cols, from, to); }

  /// Where a stack goes on at the next piece: a sum and a copy of activations, two copies of their gradient.
  void add_boundaries(const std::string& stack, int64_t length, int64_t count) {
    const int64_t n = config_.train.micro_batch * length, d = config_.model.d_model;
    add_rows(stack + "activations for the next stage", n, count, sums_elsewhere(n, d, dtype_));
    add_rows(stack + "activations and gradients that arrive", n, 3 * count, copies(n, d, dtype_, dtype_));
  }

  /// The encoder's output has a gradient in fp32 on each piece of the decoder.
  void add_memory() {
    const int64_t n = config_.train.micro_batch * lengths_.encoder, d = config_.model.d_model;
    const int64_t pieces = decoder_pieces(config_);
    const bool apart = config_.parallel.encoder_stages > 0;
    add_rows("encoder's output that arrives", n, apart ? config_.parallel.decoder_stages : 0,
             copies(n, d, dtype_, dtype_));
    add_rows("gradient of the encoder's output to zero", n, pieces, zeros(n, d, DType::fp32));
    add_rows("gradient of the encoder's output, sum", n, pieces - 1, sums(n, d, DType::fp32));
    if (dtype_ != DType::fp32)
      add_rows("gradient of the encoder's output to bf16", n, 1, copies(n, d, DType::fp32, dtype_));
  }

  /// Stages that hold the tied embedding: the first of each stack, and that of the loss.
  int64_t embedding_holders() const {
    const parallel::Layout& layout = config_.parallel;
    return 1 + (layout.decoder_stages > 1 ? 1 : 0) + (layout.encoder_stages > 0 ? 1 : 0);
  }

  /// Elements of the tied embedding on stages that hold it beside its owner.
  int64_t shared() const {
    return (embedding_holders() - 1) * config_.model.vocab_size * config_.model.d_model;
  }

  void add_gradients() {
    const int64_t ranks = config_.parallel.data;
    const int64_t embedding = config_.model.vocab_size * config_.model.d_model;
    add_elements("gradients of embedding and gains to zero", ranks * (embedding + shared() + gains_),
                 zeros(matrix_.rows, matrix_.cols, DType::fp32));
    if (ranks > 1) {
      const DType sent = config_.train.gradient_dtype;
      const int64_t held = all_ + shared();
      add_elements("gradients into buckets", ranks * held, copied(DType::fp32, sent));
      if (sent != DType::fp32) add_elements("gradients from buckets", held, copied(sent, DType::fp32));
    }
    add_elements("embedding's gradients of other stages", shared(),
                 sums(matrix_.rows, matrix_.cols, DType::fp32));
    add_elements("gradient norm", all_, gradient_norm(matrix_));
    const auto count = static_cast<int64_t>(specs_.size());
    cases_.push_back({"scalars of the step", fmt::format("{} norms", count), 0.0, 1.0, step_scalars(count)});
  }

  void add_optimizer() {
    add_elements("factored Adafactor, sums", factored_, factored_sums(matrix_));
    add_elements("factored Adafactor, statistics", factored_, factored_statistics(matrix_));
    add_elements("factored Adafactor, RMS", factored_, factored_rms(matrix_));
    add_elements("factored Adafactor, step", factored_, factored_step(matrix_));
    add_elements("Adafactor, state", all_ - factored_, adafactor_state(matrix_));
    add_elements("Adafactor, step", all_ - factored_, adafactor_step(matrix_));
  }

  /// Each rank's share of the updated weights goes to the other data ranks.
  void add_weights() {
    const int64_t ranks = config_.parallel.data, held = all_ + shared();
    if (dtype_ == DType::bf16) add_elements("weights to bf16", held - gains_, copied(DType::fp32, dtype_));
    if (ranks == 1) return;
    add_elements("weights into buckets", held, copied(dtype_, dtype_));
    add_elements("weights from buckets", (ranks - 1) * held, copied(dtype_, dtype_));
  }

  const config::RunConfig& config_;
  const data::SampleLengths lengths_;
  const DType dtype_;
  const std::vector<model::ParameterSpec> specs_;
  const ParameterSizes matrix_;
  int64_t all_ = 0, gains_ = 0, factored_ = 0;  ///< elements of parameters
  std::vector<OpCase> cases_;
};

}  // namespace

int64_t encoder_pieces(const config::RunConfig& config) {
  return std::max<int64_t>(1, int64_t{config.parallel.encoder_stages} * config.num_chunks());
}

int64_t decoder_pieces(const config::RunConfig& config) {
  return int64_t{config.parallel.decoder_stages} * config.num_chunks();
}

std::vector<OpCase> step_op_cases(const config::RunConfig& config, const data::SampleLengths& lengths) {
  return StepCases(config, lengths).make();
}

}  // namespace red::launch

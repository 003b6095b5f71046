#include "data/window_source.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "data/token_sidecar.hpp"

namespace red::data {
namespace {

std::size_t size(int64_t count) {
  return static_cast<std::size_t>(count);
}

}  // namespace

WindowShape window_shape(const DataConfig& config, bool has_encoder) {
  if (config.window < 2 || config.window % 2 != 0) {
    throw ConfigError("data.window = {}: it must be even and at least 2, half is input, half is target",
                      config.window);
  }
  WindowShape shape;
  if (has_encoder) {
    shape.objective = Objective::prefix_lm;
  } else {
    shape.objective = config.bidirectional_input ? Objective::causal_lm_bidirectional : Objective::causal_lm;
  }
  shape.window = config.window;
  shape.input = config.window / 2;
  shape.document_mask = config.document_mask;
  return shape;
}

WindowSource::WindowSource(std::string name, TokenStream stream, const SpecialIds& ids,
                           const WindowShape& shape)
    : ItemSource(std::move(name), std::move(stream)), bos_(ids.bos), shape_(shape) {
  RED_CHECK(shape.window > 0 && shape.input >= 0 && shape.input < shape.window, "window {}, input {}",
            shape.window, shape.input);
  if (num_items() == 0) {
    throw DataError("{}: {} tokens are less than one window of {}; use more text or a smaller data.window",
                    this->stream().file().bin_path().string(), this->stream().num_tokens(), shape.window);
  }
}

void WindowSource::cut(int64_t item, Sample& sample) const {
  RED_CHECK(item >= 0 && item < num_items(), "window {} of {}", item, num_items());
  sample.clear();
  sample.source_item = static_cast<uint64_t>(item);
  const int64_t first = item * shape_.window, encoder = shape_.encoder_length(),
                decoder = shape_.decoder_length();
  sample.encoder_input.resize(size(encoder));
  sample.decoder_target.resize(size(decoder));
  stream().read(first, sample.encoder_input);
  stream().read(first + encoder, sample.decoder_target);
  sample.decoder_input.resize(size(decoder));
  sample.decoder_input.front() = bos_;
  std::copy(sample.decoder_target.begin(), sample.decoder_target.end() - 1, sample.decoder_input.begin() + 1);
  sample.loss_mask.assign(size(decoder), 1);
  if (shape_.objective == Objective::causal_lm_bidirectional) {
    // The start slot counts as input; the last input position predicts the first token that is not input.
    sample.prefix = static_cast<int32_t>(1 + shape_.input);
    std::fill_n(sample.loss_mask.begin(), shape_.input, uint8_t{0});
  }
  if (shape_.document_mask) {
    sample.encoder_document.resize(size(encoder));
    sample.decoder_document.resize(size(decoder));
    stream().read_documents(first, first, sample.encoder_document);
    stream().read_documents(first, first + encoder, sample.decoder_document);
  }
}

std::string WindowSource::describe() const {
  return fmt::format("{} windows of {}, tail of {} tokens dropped", num_items(), shape_.window,
                     stream().num_tokens() % shape_.window);
}

std::unique_ptr<WindowSource> open_windows(const DataConfig& config, const std::string& name,
                                           const std::filesystem::path& prefix, const SpecialIds& ids,
                                           const WindowShape& shape) {
  const std::filesystem::path files = resolve_token_prefix(prefix);
  check_tokenizer(files, ids.tokenizer_sha256);
  TokenStream stream(TokenFile(files), ids, config.missing_eod);
  if (stream.file().holds_pairs())
    log::warning(
        "source {}: {} holds pairs; they are cut into windows as any text, with a loss on all of it. "
        "data.samples = pairs trains on their targets",
        name, stream.file().bin_path().string());
  return std::make_unique<WindowSource>(name, std::move(stream), ids, shape);
}

}  // namespace red::data

#include "data/window_provider.hpp"

#include <algorithm>
#include <utility>

#include "base/check.hpp"
#include "base/error.hpp"
#include "base/philox.hpp"
#include "data/keyed_permutation.hpp"
#include "data/token_sidecar.hpp"

namespace red::data {
namespace {

std::size_t size(int64_t count) {
  return static_cast<std::size_t>(count);
}

WindowSource open_source(const DataConfig& config, const std::string& name,
                         const std::filesystem::path& prefix, const SpecialIds& ids,
                         const WindowShape& shape) {
  const std::filesystem::path files = resolve_token_prefix(prefix);
  check_tokenizer(files, ids.tokenizer_sha256);
  TokenStream stream(TokenFile(files), ids, config.missing_eod);
  return {name, std::move(stream), ids, shape};
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
    : name_(std::move(name)), stream_(std::move(stream)), bos_(ids.bos), shape_(shape) {
  RED_CHECK(shape.window > 0 && shape.input >= 0 && shape.input < shape.window, "window {}, input {}",
            shape.window, shape.input);
  if (num_windows() == 0) {
    throw DataError("{}: {} tokens are less than one window of {}; use more text or a smaller data.window",
                    stream_.file().bin_path().string(), stream_.num_tokens(), shape.window);
  }
}

void WindowSource::cut(int64_t window, Sample& sample) const {
  RED_CHECK(window >= 0 && window < num_windows(), "window {} of {}", window, num_windows());
  sample.clear();
  sample.source_item = static_cast<uint64_t>(window);
  const int64_t first = window * shape_.window, encoder = shape_.encoder_length(),
                decoder = shape_.decoder_length();
  sample.encoder_input.resize(size(encoder));
  sample.decoder_target.resize(size(decoder));
  stream_.read(first, sample.encoder_input);
  stream_.read(first + encoder, sample.decoder_target);
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
    stream_.read_documents(first, first, sample.encoder_document);
    stream_.read_documents(first, first + encoder, sample.decoder_document);
  }
}

MixtureProvider::MixtureProvider(std::vector<WindowSource> sources, Mixture mixture, const WindowShape& shape,
                                 uint64_t seed)
    : sources_(std::move(sources)), mixture_(std::move(mixture)), shape_(shape) {
  RED_CHECK(sources_.size() == mixture_.quotas().size(), "{} sources, {} quotas", sources_.size(),
            mixture_.quotas().size());
  for (const WindowSource& source : sources_)
    keys_.push_back(hash_name("data.windows." + source.name(), seed));
}

void MixtureProvider::get(uint64_t index, Sample& sample) const {
  const Mixture::Draw draw = mixture_.draw(index);
  const auto source = size(draw.source);
  const auto windows = static_cast<uint64_t>(sources_[source].num_windows());
  const KeyedPermutation epoch(windows, keys_[source], draw.ordinal / windows);
  sources_[source].cut(static_cast<int64_t>(epoch(draw.ordinal % windows)), sample);
  sample.id = index;
  sample.source = draw.source;
}

std::vector<std::string> MixtureProvider::source_names() const {
  std::vector<std::string> names;
  for (const WindowSource& source : sources_) names.push_back(source.name());
  return names;
}

std::vector<std::string> MixtureProvider::describe() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const WindowSource& source = sources_[i];
    const int64_t quota = mixture_.quotas()[i];
    lines.push_back(fmt::format(
        "source {}: {} documents, {} tokens, {} windows of {}, tail of {} tokens dropped, share {:.2f} % ({} "
        "of {})",
        source.name(), source.stream().file().num_documents(), source.stream().num_tokens(),
        source.num_windows(), shape_.window, source.num_tail_tokens(),
        100.0 * static_cast<double>(quota) / static_cast<double>(mixture_.block()), quota, mixture_.block()));
  }
  return lines;
}

void FixedWindowProvider::get(uint64_t index, Sample& sample) const {
  source_.cut(static_cast<int64_t>(index), sample);
  sample.id = index;
  sample.source = 0;
}

std::unique_ptr<MixtureProvider> make_training_provider(const DataConfig& config, const SpecialIds& ids,
                                                        bool has_encoder) {
  const WindowShape shape = window_shape(config, has_encoder);
  std::vector<Mixture::Share> shares;
  for (const SourceConfig& source : config.sources) shares.push_back({source.name, source.weight});
  Mixture mixture(shares, config.block, config.seed);
  std::vector<WindowSource> sources;
  for (const SourceConfig& source : config.sources) {
    sources.push_back(open_source(config, source.name, source.tokens, ids, shape));
  }
  return std::make_unique<MixtureProvider>(std::move(sources), std::move(mixture), shape, config.seed);
}

std::unique_ptr<FixedWindowProvider> make_evaluation_provider(const DataConfig& config,
                                                              const std::string& name,
                                                              const std::filesystem::path& prefix,
                                                              const SpecialIds& ids,
                                                              const WindowShape& shape) {
  return std::make_unique<FixedWindowProvider>(open_source(config, name, prefix, ids, shape), shape);
}

}  // namespace red::data

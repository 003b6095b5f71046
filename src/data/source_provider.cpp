#include "data/source_provider.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/check.hpp"
#include "base/philox.hpp"
#include "data/keyed_permutation.hpp"
#include "data/pair_source.hpp"
#include "data/window_source.hpp"

namespace red::data {
namespace {

std::unique_ptr<ItemSource> open_source(const DataConfig& config, const std::string& name,
                                        const std::filesystem::path& prefix, const SpecialIds& ids,
                                        bool has_encoder) {
  if (config.samples == SampleKind::pairs)
    return open_pairs(name, prefix, ids, pair_shape(config, has_encoder));
  return open_windows(config, name, prefix, ids, window_shape(config, has_encoder));
}

}  // namespace

MixtureProvider::MixtureProvider(std::vector<std::unique_ptr<ItemSource>> sources, Mixture mixture,
                                 const SampleLengths& lengths, uint64_t seed)
    : sources_(std::move(sources)), mixture_(std::move(mixture)), lengths_(lengths) {
  RED_CHECK(sources_.size() == mixture_.quotas().size(), "{} sources, {} quotas", sources_.size(),
            mixture_.quotas().size());
  for (const auto& source : sources_) keys_.push_back(hash_name("data.windows." + source->name(), seed));
}

MixtureProvider::Place MixtureProvider::place(uint64_t index) const {
  const Mixture::Draw draw = mixture_.draw(index);
  const auto source = static_cast<std::size_t>(draw.source);
  const auto items = static_cast<uint64_t>(sources_[source]->num_items());
  const KeyedPermutation epoch(items, keys_[source], draw.ordinal / items);
  return {draw.source, static_cast<int64_t>(epoch(draw.ordinal % items))};
}

void MixtureProvider::get(uint64_t index, Sample& sample) const {
  const Place at = place(index);
  sources_[static_cast<std::size_t>(at.source)]->cut(at.item, sample);
  sample.id = index;
  sample.source = at.source;
}

std::vector<std::string> MixtureProvider::source_names() const {
  std::vector<std::string> names;
  for (const auto& source : sources_) names.push_back(source->name());
  return names;
}

std::vector<std::string> MixtureProvider::source_contents() const {
  std::vector<std::string> contents;
  for (const auto& source : sources_) contents.push_back(source->stream().file().contents());
  return contents;
}

std::vector<std::string> MixtureProvider::describe() const {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const ItemSource& source = *sources_[i];
    const int64_t quota = mixture_.quotas()[i];
    lines.push_back(fmt::format(
        "source {}: {} documents, {} tokens, {}, share {:.2f} % ({} of {})", source.name(),
        source.stream().file().num_documents(), source.stream().num_tokens(), source.describe(),
        100.0 * static_cast<double>(quota) / static_cast<double>(mixture_.block()), quota, mixture_.block()));
  }
  return lines;
}

void FixedProvider::get(uint64_t index, Sample& sample) const {
  source_->cut(static_cast<int64_t>(index), sample);
  sample.id = index;
  sample.source = 0;
}

SampleLengths sample_lengths(const DataConfig& config, bool has_encoder) {
  if (config.samples == SampleKind::pairs) return pair_shape(config, has_encoder).lengths();
  return window_shape(config, has_encoder).lengths();
}

int64_t num_late_targets(const DataConfig& config) {
  return config.samples == SampleKind::pairs ? config.target_length : config.window / 2;
}

std::unique_ptr<MixtureProvider> make_training_provider(const DataConfig& config, const SpecialIds& ids,
                                                        bool has_encoder) {
  std::vector<Mixture::Share> shares;
  for (const SourceConfig& source : config.sources) shares.push_back({source.name, source.weight});
  Mixture mixture(shares, config.block, config.seed);
  std::vector<std::unique_ptr<ItemSource>> sources;
  for (const SourceConfig& source : config.sources) {
    sources.push_back(open_source(config, source.name, source.tokens, ids, has_encoder));
  }
  return std::make_unique<MixtureProvider>(std::move(sources), std::move(mixture),
                                           sample_lengths(config, has_encoder), config.seed);
}

std::unique_ptr<FixedProvider> make_evaluation_provider(const DataConfig& config, const std::string& name,
                                                        const std::filesystem::path& prefix,
                                                        const SpecialIds& ids, bool has_encoder) {
  return std::make_unique<FixedProvider>(open_source(config, name, prefix, ids, has_encoder),
                                         sample_lengths(config, has_encoder));
}

}  // namespace red::data

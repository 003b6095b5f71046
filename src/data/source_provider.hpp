// Samples out of sources. For training, sources are mixed and every epoch of a source is a new order of all
// its items; for evaluation, the items of one source come as they lie.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/item_source.hpp"
#include "data/mixture.hpp"

namespace red::data {

/// For training: endless. Sample `index` is drawn by the mixture, then by the source's permutation of its
/// epoch.
class MixtureProvider final : public SampleProvider {
 public:
  MixtureProvider(std::vector<std::unique_ptr<ItemSource>> sources, Mixture mixture,
                  const SampleLengths& lengths, uint64_t seed);

  /// Which item of which source a sample is; reads nothing.
  struct Place {
    int32_t source = 0;
    int64_t item = 0;
  };
  Place place(uint64_t index) const;
  void get(uint64_t index, Sample& sample) const override;
  int64_t max_encoder_length() const override { return lengths_.encoder; }
  int64_t max_decoder_length() const override { return lengths_.decoder; }
  std::vector<std::string> source_names() const override;
  std::vector<std::string> source_contents() const override;

  const Mixture& mixture() const { return mixture_; }
  const std::vector<std::unique_ptr<ItemSource>>& sources() const { return sources_; }
  /// One line per source for the log: documents, tokens, items, share.
  std::vector<std::string> describe() const;

 private:
  std::vector<std::unique_ptr<ItemSource>> sources_;
  std::vector<uint64_t>
      keys_;  ///< (sources), of the permutations; by name, so that other sources do not matter
  Mixture mixture_;
  SampleLengths lengths_;
};

/// For evaluation: item i of one source is sample i.
class FixedProvider final : public SampleProvider {
 public:
  FixedProvider(std::unique_ptr<ItemSource> source, const SampleLengths& lengths)
      : source_(std::move(source)), lengths_(lengths) {}

  void get(uint64_t index, Sample& sample) const override;
  int64_t max_encoder_length() const override { return lengths_.encoder; }
  int64_t max_decoder_length() const override { return lengths_.decoder; }
  std::vector<std::string> source_names() const override { return {source_->name()}; }
  int64_t num_samples() const { return source_->num_items(); }

 private:
  std::unique_ptr<ItemSource> source_;
  SampleLengths lengths_;
};

/// The longest samples that the configuration asks for. Throws ConfigError beginning with the key for values
/// that make no samples.
SampleLengths sample_lengths(const DataConfig& config, bool has_encoder);
/// The last targets of a sample that evaluation reports by themselves: the second half of a window, all
/// targets of a pair.
int64_t num_late_targets(const DataConfig& config);

/// All sources of the configuration, opened and mixed. Throws ConfigError and DataError as its parts do.
std::unique_ptr<MixtureProvider> make_training_provider(const DataConfig& config, const SpecialIds& ids,
                                                        bool has_encoder);
/// The items of the token files at `prefix`, named `name`.
std::unique_ptr<FixedProvider> make_evaluation_provider(const DataConfig& config, const std::string& name,
                                                        const std::filesystem::path& prefix,
                                                        const SpecialIds& ids, bool has_encoder);

}  // namespace red::data

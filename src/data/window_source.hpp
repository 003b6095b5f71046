// Samples as windows: each source's documents, one after another, are cut into windows of W tokens that do
// not overlap. For training, sources are mixed and every epoch of a source is a new order of all its windows;
// for evaluation, the windows of one file come as they lie.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/mixture.hpp"
#include "data/sample.hpp"
#include "data/token_stream.hpp"

namespace red::data {

enum class Objective {
  prefix_lm,               ///< RedLLM: input to the encoder, the rest is the target
  causal_lm,               ///< DecLLM: every token is a target
  causal_lm_bidirectional  ///< DecLLM with BiAttn: input tokens see each other, the rest is the target
};

/// How a window becomes a sample. The decoder input is the target shifted right behind the start token.
struct WindowShape {
  Objective objective = Objective::prefix_lm;
  int64_t window = 2048;       ///< W
  int64_t input = 1024;        ///< tokens of it that are input; without meaning for causal_lm
  bool document_mask = false;  ///< decoder position t belongs to the document of target t

  int64_t encoder_length() const { return objective == Objective::prefix_lm ? input : 0; }
  int64_t decoder_length() const { return window - encoder_length(); }
};

/// The shape the configuration asks for: half of the window is input. Throws ConfigError for a window that is
/// not positive or not even.
WindowShape window_shape(const DataConfig& config, bool has_encoder);

/// The windows of one token file. Tokens after the last whole window are left out, and counted.
class WindowSource {
 public:
  /// Throws DataError when the file has no whole window.
  WindowSource(std::string name, TokenStream stream, const SpecialIds& ids, const WindowShape& shape);

  const std::string& name() const { return name_; }
  const TokenStream& stream() const { return stream_; }
  int64_t num_windows() const { return stream_.num_tokens() / shape_.window; }
  int64_t num_tail_tokens() const { return stream_.num_tokens() % shape_.window; }
  /// Everything of the sample but id and source.
  void cut(int64_t window, Sample& sample) const;

 private:
  std::string name_;
  TokenStream stream_;
  int32_t bos_;
  WindowShape shape_;
};

/// For training: endless. Sample `index` is drawn by the mixture, then by the source's permutation of its
/// epoch.
class MixtureProvider final : public SampleProvider {
 public:
  MixtureProvider(std::vector<WindowSource> sources, Mixture mixture, const WindowShape& shape,
                  uint64_t seed);

  void get(uint64_t index, Sample& sample) const override;
  int64_t max_encoder_length() const override { return shape_.encoder_length(); }
  int64_t max_decoder_length() const override { return shape_.decoder_length(); }
  std::vector<std::string> source_names() const override;

  const Mixture& mixture() const { return mixture_; }
  const std::vector<WindowSource>& sources() const { return sources_; }
  /// One line per source for the log: documents, tokens, windows, tail, share.
  std::vector<std::string> describe() const;

 private:
  std::vector<WindowSource> sources_;
  std::vector<uint64_t>
      keys_;  ///< (sources), of the permutations; by name, so that other sources do not matter
  Mixture mixture_;
  WindowShape shape_;
};

/// For evaluation: window i of one file is sample i.
class FixedWindowProvider final : public SampleProvider {
 public:
  FixedWindowProvider(WindowSource source, const WindowShape& shape)
      : source_(std::move(source)), shape_(shape) {}

  void get(uint64_t index, Sample& sample) const override;
  int64_t max_encoder_length() const override { return shape_.encoder_length(); }
  int64_t max_decoder_length() const override { return shape_.decoder_length(); }
  std::vector<std::string> source_names() const override { return {source_.name()}; }
  int64_t num_samples() const { return source_.num_windows(); }

 private:
  WindowSource source_;
  WindowShape shape_;
};

/// All sources of the configuration, opened and mixed. Throws ConfigError and DataError as its parts do.
std::unique_ptr<MixtureProvider> make_training_provider(const DataConfig& config, const SpecialIds& ids,
                                                        bool has_encoder);
/// The windows of the token files at `prefix`, named `name`.
std::unique_ptr<FixedWindowProvider> make_evaluation_provider(const DataConfig& config,
                                                              const std::string& name,
                                                              const std::filesystem::path& prefix,
                                                              const SpecialIds& ids,
                                                              const WindowShape& shape);

}  // namespace red::data

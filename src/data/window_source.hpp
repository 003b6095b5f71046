// Samples as windows: a source's documents, one after another, are cut into windows of W tokens that do not
// overlap.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

#include "data/item_source.hpp"

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
  SampleLengths lengths() const { return {encoder_length(), decoder_length()}; }
};

/// The shape the configuration asks for: half of the window is input. Throws ConfigError for a window that is
/// not positive or not even.
WindowShape window_shape(const DataConfig& config, bool has_encoder);

/// The windows of one token file. Tokens after the last whole window are left out, and counted.
class WindowSource final : public ItemSource {
 public:
  /// Throws DataError when the file has no whole window.
  WindowSource(std::string name, TokenStream stream, const SpecialIds& ids, const WindowShape& shape);

  int64_t num_items() const override { return stream().num_tokens() / shape_.window; }
  void cut(int64_t item, Sample& sample) const override;
  std::pair<int64_t, int64_t> documents(int64_t item) const override {
    return {stream().document_of(item * shape_.window), stream().document_of((item + 1) * shape_.window - 1)};
  }
  std::string describe() const override;

 private:
  int32_t bos_;
  WindowShape shape_;
};

/// The windows of the token files at `prefix`. Throws DataError as TokenFile and TokenStream do, and for
/// files of another tokenizer.
std::unique_ptr<WindowSource> open_windows(const DataConfig& config, const std::string& name,
                                           const std::filesystem::path& prefix, const SpecialIds& ids,
                                           const WindowShape& shape);

}  // namespace red::data

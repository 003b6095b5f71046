// Random tokens in the shape of real windows, for benchmarks and tests: the time of a step does not depend on
// what the tokens are.
#pragma once

#include "base/philox.hpp"
#include "data/sample.hpp"

namespace red::data {

class SyntheticProvider final : public SampleProvider {
 public:
  /// Lengths in tokens; encoder_length = 0 for a DecLLM.
  SyntheticProvider(int64_t encoder_length, int64_t decoder_length, int64_t vocabulary_size, uint64_t seed)
      : encoder_length_(encoder_length),
        decoder_length_(decoder_length),
        vocabulary_(vocabulary_size),
        seed_(seed) {}

  void get(uint64_t index, Sample& sample) const override {
    sample.clear();
    sample.id = index;
    const auto token = [&](int64_t i) {
      return static_cast<int32_t>(philox(seed_, index, static_cast<uint64_t>(i))[0] %
                                  static_cast<uint64_t>(vocabulary_));
    };
    for (int64_t i = 0; i < encoder_length_; ++i) sample.encoder_input.push_back(token(i));
    for (int64_t i = 0; i < decoder_length_; ++i) {
      sample.decoder_input.push_back(i == 0 ? 0 : sample.decoder_target.back());
      sample.decoder_target.push_back(token(encoder_length_ + i));
    }
    sample.loss_mask.assign(decoder_length_, 1);
  }
  int64_t max_encoder_length() const override { return encoder_length_; }
  int64_t max_decoder_length() const override { return decoder_length_; }
  std::vector<std::string> source_names() const override { return {"synthetic"}; }

 private:
  int64_t encoder_length_, decoder_length_, vocabulary_;
  uint64_t seed_;
};

}  // namespace red::data

#include "data/sample.hpp"

#include <gtest/gtest.h>

#include <string>

#include "base/error.hpp"
#include "data/padded.hpp"

namespace red::data {
namespace {

using Ints = std::vector<int32_t>;

Sample red_sample(uint64_t id, Ints encoder, Ints input, Ints target) {
  Sample sample;
  sample.id = id;
  sample.encoder_input = std::move(encoder);
  sample.decoder_input = std::move(input);
  sample.decoder_target = std::move(target);
  sample.loss_mask.assign(sample.decoder_input.size(), 1);
  return sample;
}

std::string error_of(const std::vector<Sample>& samples) {
  MicroBatch batch;
  try {
    pack(samples, DecoderPositions::after_encoder, batch);
  } catch (const DataError& error) {
    return error.what();
  }
  return "no error";
}

TEST(Pack, TwoRaggedSamples) {
  std::vector<Sample> samples = {red_sample(7, {10, 11, 12}, {0, 20}, {20, 21}),
                                 red_sample(9, {13}, {0, 30, 31}, {30, 31, 32})};
  samples[1].loss_mask = {0, 1, 1};
  MicroBatch batch;
  pack(samples, DecoderPositions::after_encoder, batch);
  EXPECT_EQ(batch.encoder.ids, (Ints{10, 11, 12, 13}));
  EXPECT_EQ(batch.encoder.positions, (Ints{0, 1, 2, 0}));
  EXPECT_EQ(batch.encoder.offsets, (Ints{0, 3, 4}));
  EXPECT_EQ(batch.decoder.ids, (Ints{0, 20, 0, 30, 31}));
  // Decoder positions go on after the sample's own encoder length.
  EXPECT_EQ(batch.decoder.positions, (Ints{3, 4, 1, 2, 3}));
  EXPECT_EQ(batch.decoder.offsets, (Ints{0, 2, 5}));
  EXPECT_EQ(batch.targets, (Ints{20, 21, 30, 31, 32}));
  EXPECT_EQ(batch.loss_mask, (std::vector<uint8_t>{1, 1, 0, 1, 1}));
  EXPECT_EQ(batch.num_targets, 4);
  EXPECT_EQ(batch.sample_ids, (std::vector<uint64_t>{7, 9}));
  EXPECT_TRUE(batch.prefixes.empty());
  EXPECT_TRUE(batch.encoder.documents.empty());
  EXPECT_TRUE(batch.decoder.documents.empty());
  EXPECT_EQ(batch.num_sequences(), 2);
  EXPECT_EQ(batch.decoder.num_tokens(), 5);

  pack(samples, DecoderPositions::from_zero, batch);
  EXPECT_EQ(batch.decoder.positions, (Ints{0, 1, 0, 1, 2}));
}

TEST(Pack, DecoderOnlyWithPrefixesAndDocuments) {
  std::vector<Sample> samples = {red_sample(1, {}, {0, 5, 6}, {5, 6, 7}), red_sample(2, {}, {0}, {8})};
  samples[0].prefix = 2;
  samples[0].decoder_document = {0, 0, 1};
  samples[1].decoder_document = {4};
  MicroBatch batch;
  pack(samples, DecoderPositions::after_encoder, batch);
  EXPECT_EQ(batch.prefixes, (Ints{2, 0}));
  EXPECT_EQ(batch.decoder.documents, (Ints{0, 0, 1, 4}));
  EXPECT_EQ(batch.decoder.positions, (Ints{0, 1, 2, 0}));
  EXPECT_EQ(batch.encoder.offsets, (Ints{0, 0, 0}));
  EXPECT_TRUE(batch.encoder.ids.empty());
}

TEST(Pack, ReusesMemoryAndForgetsTheLastBatch) {
  std::vector<Sample> samples = {red_sample(1, {1, 2}, {0, 3}, {3, 4}), red_sample(2, {1}, {0}, {1})};
  samples[0].encoder_document = {0, 1};
  samples[0].decoder_document = {1, 1};
  samples[1].encoder_document = {0};
  samples[1].decoder_document = {0};
  MicroBatch batch;
  pack(samples, DecoderPositions::after_encoder, batch);
  const int32_t* ids = batch.decoder.ids.data();
  pack(std::vector<Sample>{red_sample(3, {5}, {0}, {6})}, DecoderPositions::after_encoder, batch);
  EXPECT_EQ(batch.decoder.ids.data(), ids);
  EXPECT_EQ(batch.decoder.ids, (Ints{0}));
  EXPECT_TRUE(batch.decoder.documents.empty());
  EXPECT_EQ(batch.num_targets, 1);
  pack({}, DecoderPositions::after_encoder, batch);
  EXPECT_EQ(batch.num_sequences(), 0);
  EXPECT_EQ(batch.encoder.offsets, (Ints{0}));
}

TEST(Pack, SampleClearKeepsCapacity) {
  Sample sample = red_sample(3, {1, 2}, {0, 3}, {3, 4});
  sample.prefix = 1;
  sample.source = 2;
  const int32_t* memory = sample.encoder_input.data();
  sample.clear();
  EXPECT_EQ(sample.id, 0U);
  EXPECT_EQ(sample.source, 0);
  EXPECT_EQ(sample.prefix, 0);
  EXPECT_TRUE(sample.encoder_input.empty());
  EXPECT_TRUE(sample.loss_mask.empty());
  sample.encoder_input.assign(2, 0);
  EXPECT_EQ(sample.encoder_input.data(), memory);
}

TEST(Pack, WrongLengthsNameTheSample) {
  auto bad = red_sample(42, {1}, {0, 1}, {1});
  EXPECT_EQ(error_of({bad}),
            "sample 42: 2 decoder inputs, 1 targets and 2 loss mask entries; the three must agree");
  bad = red_sample(42, {1}, {0, 1}, {1, 2});
  bad.prefix = 3;
  EXPECT_EQ(error_of({bad}), "sample 42: prefix 3 is outside 0 ... 2, its number of decoder inputs");
  bad.prefix = 0;
  bad.decoder_document = {0, 0};
  EXPECT_EQ(error_of({bad}), "sample 42: 1 encoder tokens but 0 document ids; every token needs one");
  bad.encoder_document = {0};
  bad.decoder_document = {1, 0};
  EXPECT_EQ(error_of({bad}),
            "sample 42: decoder document ids fall from 1 to 0 at token 1; they must never decrease");
  bad.decoder_document = {0, 1};
  EXPECT_EQ(error_of({bad, red_sample(43, {1}, {0}, {1})}),
            "sample 43 has no document ids, the first sample of its batch has them; all must or none");
  EXPECT_EQ(error_of({red_sample(43, {1}, {0}, {1}), bad}),
            "sample 42 has document ids, the first sample of its batch has none; all must or none");
}

TEST(FromPadded, LengthsNotIdsSayWhatIsPadding) {
  // Id 0 is both the start token and the padding; a true token 0 inside a text must live.
  const Ints encoder = {4, 0, 5, 6, 0, 0}, lengths = {3, 1};
  const Ints input = {0, 7, 0, 0}, target = {7, 0, 9, 0}, decoder_lengths = {2, 1}, prefixes = {0, 1};
  PaddedBatch padded;
  padded.encoder_width = 3;
  padded.decoder_width = 2;
  padded.encoder_lengths = lengths;
  padded.decoder_lengths = decoder_lengths;
  padded.encoder_input = encoder;
  padded.decoder_input = input;
  padded.decoder_target = target;
  padded.prefixes = prefixes;
  std::vector<Sample> samples;
  from_padded(padded, 100, samples);
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_EQ(samples[0].encoder_input, (Ints{4, 0, 5}));
  EXPECT_EQ(samples[0].decoder_target, (Ints{7, 0}));
  EXPECT_EQ(samples[0].loss_mask, (std::vector<uint8_t>{1, 1}));
  EXPECT_EQ(samples[1].encoder_input, (Ints{6}));
  EXPECT_EQ(samples[1].decoder_input, (Ints{0}));
  EXPECT_EQ(samples[1].prefix, 1);
  EXPECT_EQ(samples[1].id, 101U);

  const std::vector<uint8_t> mask = {0, 1, 1, 1};
  const Ints encoder_document = {0, 0, 1, 0, 9, 9}, decoder_document = {1, 1, 0, 9};
  padded.loss_mask = mask;
  padded.encoder_document = encoder_document;
  padded.decoder_document = decoder_document;
  from_padded(padded, 0, samples);
  EXPECT_EQ(samples[0].loss_mask, (std::vector<uint8_t>{0, 1}));
  EXPECT_EQ(samples[0].encoder_document, (Ints{0, 0, 1}));
  EXPECT_EQ(samples[1].decoder_document, (Ints{0}));
}

TEST(FromPadded, RefusesWhatDoesNotFit) {
  const Ints input = {0, 7, 0, 0}, lengths = {2, 3};
  PaddedBatch padded;
  padded.decoder_width = 2;
  padded.decoder_lengths = lengths;
  padded.decoder_input = input;
  std::vector<Sample> samples;
  const auto error = [&] {
    try {
      from_padded(padded, 0, samples);
    } catch (const DataError& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  EXPECT_EQ(error(), "padded batch: decoder_target has 0 entries, 2 rows of 2 need 4");
  padded.decoder_target = input;
  EXPECT_EQ(error(), "padded batch: example 1: decoder length 3 is outside 0 ... 2");
}

}  // namespace
}  // namespace red::data

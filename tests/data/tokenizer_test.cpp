#include "data/tokenizer.hpp"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <set>

#include "data/test_files.hpp"
#include "data/texts.hpp"
#include "data/tokenizer_training.hpp"
#include "data/utf8.hpp"

namespace red::data {
namespace {

using Ints = std::vector<int32_t>;

std::string model_of(TokenizerTraining::Algorithm algorithm, int64_t vocabulary = 700) {
  TrainingSample sample(1 << 20, 1);
  for (const std::string& text : make_texts(200)) sample.add_document(text);
  TokenizerTraining options;
  options.algorithm = algorithm;
  options.vocabulary_size = vocabulary;
  return train_tokenizer(sample.take_sentences(), options);
}

/// Trained once for all tests of this file.
const Tokenizer& bpe() {
  static const Tokenizer tokenizer =
      Tokenizer::from_bytes(model_of(TokenizerTraining::Algorithm::bpe), "bpe");
  return tokenizer;
}

TEST(Tokenizer, SpecialIdsAndDigest) {
  EXPECT_EQ(bpe().ids().pad, 0);
  EXPECT_EQ(bpe().ids().bos, 1);
  EXPECT_EQ(bpe().ids().eos, 2);
  EXPECT_EQ(bpe().ids().eod, 4);
  EXPECT_EQ(bpe().vocabulary_size(), 700);
  EXPECT_EQ(bpe().piece(4), "[EOD]");
  EXPECT_EQ(bpe().digest().size(), 64U);
}

void expect_round_trip(const Tokenizer& tokenizer, const std::string& text) {
  const Ints ids = tokenizer.encode(text);
  EXPECT_EQ(tokenizer.decode(ids), text);
  for (const int32_t id : ids) EXPECT_GT(id, 4) << "a control id from the text: " << text;
}

TEST(Tokenizer, EveryTextComesBack) {
  const Tokenizer unigram = Tokenizer::from_bytes(model_of(TokenizerTraining::Algorithm::unigram), "unigram");
  for (const auto* tokenizer : {&bpe(), &unigram}) {
    for (const std::string& text : hard_texts()) expect_round_trip(*tokenizer, text);
    for (const std::string& text : make_texts(40, 9)) expect_round_trip(*tokenizer, text);
  }
}

TEST(Tokenizer, RandomCodePointsComeBack) {
  for (uint64_t t = 0; t < 300; ++t) {
    std::string text;
    for (uint64_t i = 0; i < 50; ++i) {
      const PhiloxBlock r = philox(3, t, i);
      uint32_t code = r[0] % (r[1] % 3 == 0 ? 0x110000U : r[1] % 3 == 1 ? 0x3000U : 0x80U);
      if (code >= 0xD800 && code < 0xE000) code = ' ';
      if (code < 0x80) {
        text.push_back(static_cast<char>(code));
      } else if (code < 0x800) {
        text += {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
      } else if (code < 0x10000) {
        text += {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
                 static_cast<char>(0x80 | (code & 63))};
      } else {
        text += {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
                 static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
      }
    }
    expect_round_trip(bpe(), text);
  }
}

TEST(Tokenizer, TheEncodersMemoryChangesNothing) {
  Encoder encoder(bpe());
  for (int pass = 0; pass < 2; ++pass) {
    for (const std::string& text : make_texts(60, 5)) {
      Ints remembered = {-1};
      encoder.encode(text, remembered);
      Ints fresh = {-1};
      bpe().encode(text, fresh);
      EXPECT_EQ(remembered, fresh);
    }
  }
}

TEST(Tokenizer, IdsAreSentencePiecesOwn) {
  const std::string model = model_of(TokenizerTraining::Algorithm::bpe);
  const Tokenizer tokenizer = Tokenizer::from_bytes(model, "bpe");
  sentencepiece::SentencePieceProcessor processor;
  ASSERT_TRUE(processor.LoadFromSerializedProto(model).ok());
  std::vector<std::string> texts = make_texts(60, 5);
  for (const std::string& text : hard_texts()) {
    if (text.find("\xe2\x96\x81") == std::string::npos) texts.push_back(text);
  }
  for (const std::string& text : texts) {
    std::vector<int> whole;
    ASSERT_TRUE(processor.Encode(text, &whole).ok());
    EXPECT_EQ(tokenizer.encode(text), whole);
  }
}

TEST(Tokenizer, PartsOfATextCutAtSpacesGiveTheSameIds) {
  for (const std::string& text : make_texts(20, 6)) {
    const Ints whole = bpe().encode(text);
    for (std::size_t cut = text.find(' '); cut != std::string::npos; cut = text.find(' ', cut + 1)) {
      if (cut == 0 || text[cut - 1] == ' ') continue;
      Ints parts = bpe().encode(text.substr(0, cut));
      bpe().encode(text.substr(cut), parts);
      ASSERT_EQ(parts, whole);
    }
  }
}

TEST(Tokenizer, LongTextsWithoutAnySpace) {
  std::string text;
  for (int i = 0; i < 30000; ++i) text += i % 2 == 0 ? "x" : "漢字かな";
  expect_round_trip(bpe(), text);
  expect_round_trip(bpe(), std::string(200000, 'a'));
  expect_round_trip(bpe(), std::string(200000, ' '));
}

TEST(Tokenizer, ControlIdsAreShownOnlyWhenAsked) {
  Ints ids = bpe().encode("end.");
  ids.push_back(4);
  bpe().encode("Begin", ids);
  ids.insert(ids.begin(), 1);
  EXPECT_EQ(bpe().decode(ids), "end.Begin");
  EXPECT_EQ(bpe().decode_visibly(ids), "<s>end.[EOD]Begin");
}

TEST(Tokenizer, BadTextAndBadIds) {
  EXPECT_EQ(message_of<DataError>([] { bpe().encode("ab\xff"); }), "invalid UTF-8 at byte 2 of the text");
  EXPECT_EQ(message_of<DataError>([] { bpe().encode("\xe6\xbc"); }), "invalid UTF-8 at byte 0 of the text");
  EXPECT_EQ(message_of<DataError>([] { bpe().decode(Ints{700}); }),
            "id 700 is outside the vocabulary of 700 of tokenizer bpe");
  EXPECT_EQ(message_of<DataError>([] { bpe().decode(Ints{-1}); }),
            "id -1 is outside the vocabulary of 700 of tokenizer bpe");
}

TEST(Tokenizer, FilesThatAreNoTokenizer) {
  const TempFolder folder;
  const auto error = [&](const std::string& bytes) {
    write_file(folder / "t.model", bytes);
    return message_of<DataError>([&] { Tokenizer tokenizer(folder / "t.model"); });
  };
  EXPECT_NE(error("").find("t.model: is no SentencePiece model"), std::string::npos);
  EXPECT_NE(error("not a model at all").find("t.model: is no SentencePiece model"), std::string::npos);
  const std::string good = model_of(TokenizerTraining::Algorithm::bpe, 600);
  EXPECT_EQ(error(good), "no error");
  EXPECT_NE(error(good.substr(0, good.size() / 2)).find("t.model: "), std::string::npos);
  std::string other = good;
  other.replace(other.find("[EOD]"), 5, "[END]");
  EXPECT_NE(error(other).find("has no control symbol [EOD]; train one with"), std::string::npos);
  EXPECT_NE(message_of<DataError>([&] {
              Tokenizer tokenizer(folder / "none.model");
            }).find("none.model: not found"),
            std::string::npos);
}

TEST(TokenizerTraining, VocabulariesThatCannotBe) {
  EXPECT_NE(message_of<ConfigError>([] {
              model_of(TokenizerTraining::Algorithm::bpe, 300);
            }).find("vocabulary size 300: too small for 256 bytes"),
            std::string::npos);
  EXPECT_NE(message_of<ConfigError>([] {
              model_of(TokenizerTraining::Algorithm::bpe, 60000);
            }).find("vocabulary size 60000: the text is too small for so many pieces"),
            std::string::npos);
  EXPECT_NE(message_of<ConfigError>([] {
              model_of(TokenizerTraining::Algorithm::unigram, 60000);
            }).find("vocabulary size 60000: the text is too small for so many pieces"),
            std::string::npos);
  EXPECT_EQ(message_of<DataError>([] { train_tokenizer({}, {}); }), "no text to train a tokenizer on");
}

TEST(TokenizerTraining, TheSameTextGivesTheSameModel) {
  EXPECT_EQ(model_of(TokenizerTraining::Algorithm::bpe), model_of(TokenizerTraining::Algorithm::bpe));
}

TEST(TrainingSample, SentencesLoseNothing) {
  std::string long_line = "x";
  while (long_line.size() < 20000) long_line += " some words on one very long line";
  const std::string no_space(10001, 'y');
  std::string cjk;
  while (cjk.size() < 10000) cjk += "漢字";
  for (const std::string& text : {std::string("a\n\n\n  b\nc"), std::string("\n\n"), long_line, no_space, cjk,
                                  fmt::format("{}\n{} \n{}", long_line, cjk, no_space), make_texts(4)[1]}) {
    TrainingSample sample(1 << 20, 1);
    sample.add_document(text);
    std::string joined;
    for (const std::string& sentence : sample.take_sentences()) {
      EXPECT_LE(sentence.size(), 4096U);
      EXPECT_EQ(find_invalid_utf8(sentence), std::string::npos);
      joined += sentence;
    }
    EXPECT_EQ(joined, text);
  }
  TrainingSample sample(1 << 20, 1);
  sample.add_document("one\n\n  two\nthree");
  EXPECT_EQ(sample.take_sentences(), (std::vector<std::string>{"one\n\n", "  two\n", "three"}));
}

TEST(TrainingSample, BoundedSeededAndUniform) {
  // 10,000 sentences of 10 bytes, room for 1,000: each tenth of the text should give about 100; standard
  // deviation 9.5, six of them allowed.
  const auto sample_of = [](uint64_t seed) {
    TrainingSample sample(10000, seed);
    for (int i = 0; i < 10000; ++i) sample.add_document(fmt::format("line {:04}\n", i));
    EXPECT_LE(sample.num_bytes(), 10000);
    EXPECT_EQ(sample.num_bytes_seen(), 100000);
    return sample.take_sentences();
  };
  const auto sentences = sample_of(1);
  EXPECT_EQ(sentences.size(), 1000U);
  EXPECT_TRUE(std::is_sorted(sentences.begin(), sentences.end()));
  std::vector<int> tenths(10);
  for (const std::string& sentence : sentences) ++tenths[static_cast<std::size_t>(sentence[5] - '0')];
  for (const int count : tenths) EXPECT_NEAR(count, 100, 57);
  EXPECT_EQ(sample_of(1), sentences);
  EXPECT_NE(sample_of(2), sentences);
}

TEST(Utf8, InvalidBytesArePlaced) {
  const auto at = [](const std::string& text) { return find_invalid_utf8(text); };
  EXPECT_EQ(at("ok 漢😀"), std::string::npos);
  EXPECT_EQ(at("abc\x80"), 3U);
  EXPECT_EQ(at("a\xc0\xaf"), 1U);         // overlong
  EXPECT_EQ(at("a\xe0\x80\xaf"), 1U);     // overlong
  EXPECT_EQ(at("ab\xed\xa0\x80"), 2U);    // surrogate
  EXPECT_EQ(at("\xf4\x90\x80\x80"), 0U);  // above U+10FFFF
  EXPECT_EQ(at("\xf0\x80\x80\x80"), 0U);  // overlong
  EXPECT_EQ(at("\xf5\x80\x80\x80"), 0U);
  EXPECT_EQ(at("漢\xe6\xbc"), 3U);  // cut off
  EXPECT_EQ(at(std::string(1000, 'a') + "\xff"), 1000U);
}

}  // namespace
}  // namespace red::data

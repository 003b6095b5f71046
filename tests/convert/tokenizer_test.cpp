// The tokenizer of an export, read as Transformers' library reads it: byte-pair encoding by the list of
// merges, bytes for characters that are no piece. A plain implementation of that here gives the engine's ids.
#include "data/tokenizer.hpp"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "convert/huggingface_tokenizer.hpp"
#include "convert/sentencepiece_model.hpp"
#include "data/tokenizer_training.hpp"
#include "data/utf8.hpp"
#include "integration/plain_text.hpp"

namespace red::convert {
namespace {

using nlohmann::json;

std::string trained(data::TokenizerTraining::Algorithm algorithm) {
  std::vector<std::string> sentences;
  for (uint64_t i = 0; i < 400; ++i)
    sentences.push_back(test::sentence(i) + (i % 3 == 0 ? "\n" : "  \tand  "));
  data::TokenizerTraining options;
  options.vocabulary_size = algorithm == data::TokenizerTraining::Algorithm::bpe ? 420 : 300;
  options.algorithm = algorithm;
  return data::train_tokenizer(std::move(sentences), options);
}

/// tokenizer.json at work, the slow way.
class PlainBpe {
 public:
  explicit PlainBpe(const json& model) {
    for (const auto& [text, id] : model.at("vocab").items()) ids_[text] = id;
    int rank = 0;
    for (const json& merge : model.at("merges")) ranks_[{merge.at(0), merge.at(1)}] = rank++;
  }

  std::vector<int32_t> encode(const std::string& text) const {
    std::vector<std::string> parts;
    for (std::size_t at = 0; at < text.size(); at += data::utf8_length(text[at])) {
      const std::string character = text.substr(at, data::utf8_length(text[at]));
      if (ids_.contains(character)) {
        parts.push_back(character);
      } else {
        for (const char byte : character)
          parts.push_back(fmt::format("<0x{:02X}>", static_cast<unsigned char>(byte)));
      }
    }
    while (merge_best(parts)) {
    }
    std::vector<int32_t> result;
    for (const std::string& part : parts) result.push_back(ids_.at(part));
    return result;
  }

 private:
  bool merge_best(std::vector<std::string>& parts) const {
    std::size_t best = parts.size();
    int best_rank = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ranks_.find({parts[i], parts[i + 1]});
      if (found != ranks_.end() && (best == parts.size() || found->second < best_rank)) {
        best = i;
        best_rank = found->second;
      }
    }
    if (best == parts.size()) return false;
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    return true;
  }

  std::map<std::string, int32_t> ids_;
  std::map<std::pair<std::string, std::string>, int> ranks_;
};

class HuggingfaceTokenizerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { model = trained(data::TokenizerTraining::Algorithm::bpe); }

  static json tokenizer_json(const TokenizerEnds& ends = {}) {
    return json::parse(huggingface_tokenizer(model, "t.model", tokenizer().ids(), ends, 64).tokenizer);
  }
  static data::Tokenizer tokenizer() { return data::Tokenizer::from_bytes(model, "t.model"); }

  static inline std::string model;
};

TEST_F(HuggingfaceTokenizerTest, GivesTheEnginesIds) {
  const PlainBpe bpe(tokenizer_json().at("model"));
  const data::Tokenizer engine = tokenizer();
  std::vector<std::string> texts = {"<s>[EOD]</s>",
                                    "\u2581 a\u2581b",
                                    "   ",
                                    "\t\n\r",
                                    "The The the",
                                    "<0x0A>",
                                    "\U0001F600 caf\u00e9 nai\u0308ve",
                                    "aaaaaaa",
                                    ""};
  for (uint64_t i = 1000; i < 1200; ++i) texts.push_back(test::sentence(i));
  for (const std::string& text : texts) EXPECT_EQ(bpe.encode(text), engine.encode(text)) << text;
}

TEST_F(HuggingfaceTokenizerTest, SaysWhatIsSpecial) {
  const json content = tokenizer_json();
  std::vector<std::string> special;
  for (const json& token : content.at("added_tokens")) {
    EXPECT_TRUE(token.at("special").get<bool>());
    EXPECT_EQ(content.at("model").at("vocab").at(token.at("content").get<std::string>()), token.at("id"));
    special.push_back(token.at("content"));
  }
  EXPECT_EQ(special, (std::vector<std::string>{"<pad>", "<s>", "</s>", "<unk>", "[EOD]"}));
  EXPECT_EQ(content.at("model").at("vocab").size(), 420U);
}

TEST_F(HuggingfaceTokenizerTest, PutsTokensAroundATextWhereTheModelHadThem) {
  const auto around = [](const json& content) {
    std::vector<std::string> order;
    for (const json& item : content.at("post_processor").at("single"))
      order.push_back(item.contains("Sequence") ? "text"
                                                : item.at("SpecialToken").at("id").get<std::string>());
    return order;
  };
  EXPECT_EQ(around(tokenizer_json()), (std::vector<std::string>{"text"}));
  EXPECT_EQ(around(tokenizer_json({true, false})), (std::vector<std::string>{"<s>", "text"}));
  EXPECT_EQ(around(tokenizer_json({false, true})), (std::vector<std::string>{"text", "</s>"}));
}

TEST_F(HuggingfaceTokenizerTest, RefusesWhatItCannotKeep) {
  const std::string unigram = trained(data::TokenizerTraining::Algorithm::unigram);
  const data::SpecialIds ids = data::Tokenizer::from_bytes(unigram, "u.model").ids();
  try {
    huggingface_tokenizer(unigram, "u.model", ids, {}, 64);
    ADD_FAILURE() << "accepted";
  } catch (const DataError& error) {
    EXPECT_NE(std::string(error.what()).find("u.model: is no byte-pair encoding"), std::string::npos)
        << error.what();
  }
  for (const std::string& bytes :
       {std::string(), std::string("\x0a\xff"), model.substr(0, model.size() / 2), std::string(20, '\xff')}) {
    EXPECT_THROW(
        {
          const SentencePieceModel parsed = parse_sentencepiece_model(bytes, "bad");
          if (!parsed.is_bpe) throw DataError("cut off before the trainer's settings");
        },
        DataError);
  }
}

}  // namespace
}  // namespace red::convert

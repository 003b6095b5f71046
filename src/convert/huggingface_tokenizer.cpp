#include "convert/huggingface_tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "convert/sentencepiece_model.hpp"
#include "data/utf8.hpp"

namespace red::convert {
namespace {

using nlohmann::ordered_json;

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

std::string with_spaces(const std::string& piece) {
  std::string text;
  for (std::size_t at = 0; at < piece.size();) {
    const bool mark = piece.compare(at, kSpaceMark.size(), kSpaceMark) == 0;
    text += mark ? ' ' : piece[at];
    at += mark ? kSpaceMark.size() : 1;
  }
  return text;
}

void check(const SentencePieceModel& model, const std::string& name) {
  if (!model.is_bpe)
    throw DataError(
        "tokenizer {}: is no byte-pair encoding; only that has the same ids in Transformers' tokenizers "
        "(`redllm tokenizer train --algorithm bpe`)",
        name);
  for (const Piece& piece : model.pieces) {
    if (piece.type == PieceType::user_defined || piece.type == PieceType::unused)
      throw DataError("tokenizer {}: piece '{}' is user-defined or unused, which an export cannot keep", name,
                      piece.text);
  }
}

/// Every way to make a piece of two others, in the order in which SentencePiece would: by the piece's score,
/// and of one piece the shorter left part first.
ordered_json merges_of(const SentencePieceModel& model, const std::vector<std::string>& texts) {
  std::unordered_map<std::string_view, std::size_t> normal;
  std::vector<std::size_t> by_score;
  for (std::size_t id = 0; id < texts.size(); ++id) {
    if (model.pieces[id].type != PieceType::normal) continue;
    normal.emplace(texts[id], id);
    by_score.push_back(id);
  }
  std::stable_sort(by_score.begin(), by_score.end(), [&](std::size_t a, std::size_t b) {
    return model.pieces[a].score > model.pieces[b].score;
  });
  ordered_json merges = ordered_json::array();
  for (const std::size_t id : by_score) {
    const std::string_view whole = texts[id];
    for (std::size_t at = data::utf8_length(whole[0]); at < whole.size();
         at += data::utf8_length(whole[at])) {
      const std::string_view left = whole.substr(0, at), right = whole.substr(at);
      if (normal.contains(left) && normal.contains(right)) merges.push_back({left, right});
    }
  }
  return merges;
}

bool is_special(const Piece& piece) {
  return piece.type == PieceType::control || piece.type == PieceType::unknown;
}

ordered_json special_token(int64_t id, const std::string& content) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

ordered_json post_processor(const SentencePieceModel& model, const data::SpecialIds& ids,
                            const TokenizerEnds& ends) {
  ordered_json single = ordered_json::array(), pair = ordered_json::array(), tokens = ordered_json::object();
  const auto add_special = [&](int32_t id) {
    const std::string& text = model.pieces[static_cast<std::size_t>(id)].text;
    tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    for (ordered_json* sequence : {&single, &pair})
      sequence->push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
  };
  if (ends.begin_with_bos) add_special(ids.bos);
  for (ordered_json* sequence : {&single, &pair})
    sequence->push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 0}}}});
  if (ends.end_with_eos) add_special(ids.eos);
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", tokens}};
}

/// tokenizer.json. The vocabulary is put together as text: an ordered object would look through itself for
/// each piece.
std::string tokenizer_json(const SentencePieceModel& model, const std::vector<std::string>& texts,
                           const std::string& unknown, const ordered_json& post) {
  ordered_json added = ordered_json::array();
  std::string vocabulary;
  for (std::size_t id = 0; id < texts.size(); ++id) {
    if (is_special(model.pieces[id])) added.push_back(special_token(static_cast<int64_t>(id), texts[id]));
    vocabulary += fmt::format("{}{}:{}", id == 0 ? "" : ",", ordered_json(texts[id]).dump(), id);
  }
  ordered_json tokenizer = {{"version", "1.0"},       {"truncation", nullptr}, {"padding", nullptr},
                            {"added_tokens", added},  {"normalizer", nullptr}, {"pre_tokenizer", nullptr},
                            {"post_processor", post}, {"decoder", nullptr}};
  tokenizer["decoder"] = {{"type", "Sequence"},
                          {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}};
  const ordered_json bpe = {{"type", "BPE"},
                            {"dropout", nullptr},
                            {"unk_token", unknown},
                            {"continuing_subword_prefix", nullptr},
                            {"end_of_word_suffix", nullptr},
                            {"fuse_unk", false},
                            {"byte_fallback", true},
                            {"ignore_merges", false}};
  std::string head = tokenizer.dump(), settings = bpe.dump();
  head.pop_back();
  settings.pop_back();
  return fmt::format("{},\"model\":{},\"vocab\":{{{}}},\"merges\":{}}}}}\n", head, settings, vocabulary,
                     merges_of(model, texts).dump());
}

/// tokenizer_config.json.
std::string settings_json(const SentencePieceModel& model, const std::string& unknown,
                          const data::SpecialIds& ids, const TokenizerEnds& ends, int64_t max_length) {
  const auto text_of = [&](int32_t id) { return model.pieces[static_cast<std::size_t>(id)].text; };
  ordered_json extra = ordered_json::array();
  for (const Piece& piece : model.pieces) {
    const bool named =
        piece.text == text_of(ids.pad) || piece.text == text_of(ids.bos) || piece.text == text_of(ids.eos);
    if (piece.type == PieceType::control && !named) extra.push_back(piece.text);
  }
  // split_special_tokens: "<s>" in a text is text.
  const ordered_json settings = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                 {"bos_token", text_of(ids.bos)},
                                 {"eos_token", text_of(ids.eos)},
                                 {"pad_token", text_of(ids.pad)},
                                 {"unk_token", unknown},
                                 {"additional_special_tokens", extra},
                                 {"split_special_tokens", true},
                                 {"clean_up_tokenization_spaces", false},
                                 {"model_max_length", max_length},
                                 {"padding_side", ends.begin_with_bos ? "left" : "right"},
                                 {"model_input_names", {"input_ids", "attention_mask"}}};
  return settings.dump(2) + "\n";
}

}  // namespace

TokenizerFiles huggingface_tokenizer(std::string_view bytes, const std::string& name,
                                     const data::SpecialIds& ids, const TokenizerEnds& ends,
                                     int64_t max_length) {
  const SentencePieceModel model = parse_sentencepiece_model(bytes, name);
  check(model, name);
  std::vector<std::string> texts;
  std::unordered_set<std::string> different;
  std::string unknown;
  for (const Piece& piece : model.pieces) {
    texts.push_back(piece.type == PieceType::normal ? with_spaces(piece.text) : piece.text);
    if (texts.back().empty() || !different.insert(texts.back()).second)
      throw DataError("tokenizer {}: piece '{}' is empty, or differs from another only in U+2581 and a space",
                      name, piece.text);
    if (piece.type == PieceType::unknown) unknown = piece.text;
  }
  return {tokenizer_json(model, texts, unknown, post_processor(model, ids, ends)),
          settings_json(model, unknown, ids, ends, max_length)};
}

}  // namespace red::convert

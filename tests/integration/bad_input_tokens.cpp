// Token files.
#include <cstring>

#include "data/token_file_writer.hpp"
#include "integration/bad_input.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

const std::string kPrefix = "wiki_text_document";
const std::vector<std::string> kVerify = {"data", "verify", "--tokenizer", "t.model", "wiki"};
const std::vector<std::string> kTrain = {"train", "--config", "run.ini", "--train.run_dir=new"};

/// The good token files with one of them changed.
BadInput damaged(std::string name, const std::string& suffix,
                 const std::function<void(std::string& bytes)>& damage, std::vector<std::string> message,
                 std::vector<std::string> args = kVerify) {
  return {std::move(name),
          {},
          std::move(args),
          std::move(message),
          ExitCode::data,
          [suffix, damage](const std::filesystem::path& here) {
            copy_good_inputs(here);
            const std::filesystem::path file = here / (kPrefix + suffix);
            std::string bytes = read_bytes(file);
            damage(bytes);
            write_bytes(file, bytes);
          }};
}

BadInput without(std::string name, const std::string& suffix, std::vector<std::string> message) {
  return {std::move(name),
          {},
          kVerify,
          std::move(message),
          ExitCode::data,
          [suffix](const std::filesystem::path& here) {
            copy_good_inputs(here);
            std::filesystem::remove(here / (kPrefix + suffix));
          }};
}

BadInput command(std::string name, std::vector<std::string> args, std::vector<std::string> message) {
  return {std::move(name), {}, std::move(args), std::move(message), ExitCode::data, copy_good_inputs};
}

void set_token(std::string& bin, std::size_t token, uint16_t id) {
  std::memcpy(bin.data() + token * sizeof(id), &id, sizeof(id));
}

constexpr uint16_t kBeyond = 60000;
constexpr int32_t kEod = 4;

/// Eight windows, of which one has an id beyond the vocabulary: one rank meets it, in some step.
void write_one_bad_window(const std::filesystem::path& here) {
  copy_good_inputs(here);
  std::vector<int32_t> tokens(8 * kGoodWindow, 300);
  tokens[5 * kGoodWindow + 3] = kBeyond;
  tokens.back() = kEod;
  data::TokenFileWriter writer(here / "odd", data::TokenType::u16);
  writer.append(tokens);
  writer.end_document();
  writer.finish();
}

std::vector<BadInput> wrong_files() {
  return {
      command("MissingTokens", {"data", "verify", "gone"},
              {"gone.idx", "gone_text_document.idx", "redllm data build --out gone"}),
      command("TrainingOnMissingTokens",
              {"train", "--config", "run.ini", "--train.run_dir=new", "--data.source.wiki.tokens=gone"},
              {"neither gone.idx nor gone_text_document.idx"}),
      command("EvaluatingOnMissingTokens",
              {"eval", "perplexity", "--checkpoint", "run", "--data.source.wiki.held_out=gone"},
              {"neither gone.idx nor gone_text_document.idx"}),
      without("MissingBin", ".bin", {kPrefix + ".bin", "not found"}),
      damaged("TruncatedIndex", ".idx", [](std::string& bytes) { bytes.resize(bytes.size() - 8); },
              {kPrefix + ".idx", "truncated"}),
      damaged("TruncatedIndexHeader", ".idx", [](std::string& bytes) { bytes.resize(20); },
              {kPrefix + ".idx", "20 bytes", "header"}),
      damaged("EmptyIndex", ".idx", [](std::string& bytes) { bytes.clear(); }, {kPrefix + ".idx"}),
      damaged("TruncatedBin", ".bin", [](std::string& bytes) { bytes.resize(bytes.size() - 2); },
              {kPrefix + ".bin", "truncated"}),
      damaged("BinThatGoesOn", ".bin", [](std::string& bytes) { bytes += "more"; },
              {kPrefix + ".bin", "do not belong together"}),
      damaged("WrongMagic", ".idx", [](std::string& bytes) { bytes[0] = 'N'; },
              {kPrefix + ".idx", "MMIDIDX"}),
      damaged("UnknownVersionOfTheIndex", ".idx", [](std::string& bytes) { bytes[9] = 2; },
              {kPrefix + ".idx", "version 2"}),
      damaged("UnknownTypeOfTokens", ".idx", [](std::string& bytes) { bytes[17] = 77; },
              {kPrefix + ".idx", "type code 77"}),
      damaged("LengthsThatDoNotAddUp", ".idx", [](std::string& bytes) { bytes[34] ^= 1; },
              {kPrefix + ".idx", "sequence 1"}),
  };
}

std::vector<BadInput> wrong_tokens() {
  const auto everywhere = [](std::string& bytes) {
    for (std::size_t i = 0; 2 * i < bytes.size(); ++i) {
      uint16_t id = 0;
      std::memcpy(&id, bytes.data() + 2 * i, sizeof(id));
      if (id != kEod) set_token(bytes, i, kBeyond);
    }
  };
  BadInput one_window = command("IdBeyondTheVocabularyInOneWindow", kTrain,
                                {"odd.bin", "token 163", "is 60000", "outside the vocabulary of 320"});
  one_window.args.insert(one_window.args.end(), {"--data.source.wiki.tokens=odd", "--train.steps=8"});
  one_window.prepare = write_one_bad_window;
  return {
      damaged("IdBeyondTheVocabulary", ".bin", [](std::string& bytes) { set_token(bytes, 5, kBeyond); },
              {kPrefix + ".bin", "token 5 (in document 0) is 60000", "outside"}),
      damaged("FirstIdBeyondTheVocabulary", ".bin",
              [](std::string& bytes) { set_token(bytes, 7, kGoodVocabulary); },
              {kPrefix + ".bin", "token 7 (in document 0) is 320", "outside"}),
      damaged("TrainingOnIdsBeyondTheVocabulary", ".bin", everywhere,
              {kPrefix + ".bin", "is 60000", "outside the vocabulary of 320"}, kTrain),
      damaged("LastDocumentWithoutEod", ".bin",
              [](std::string& bytes) { set_token(bytes, bytes.size() / 2 - 1, 300); },
              {kPrefix + ".bin", "is 300", "the last of a document must be [EOD]"}),
      damaged(
          "TrainingOnADocumentWithoutEod", ".bin",
          [](std::string& bytes) { set_token(bytes, bytes.size() / 2 - 1, 300); },
          {kPrefix + ".bin", "[EOD]"}, kTrain),
      damaged(
          "TrainingOnTruncatedTokens", ".bin", [](std::string& bytes) { bytes.resize(100); },
          {kPrefix + ".bin", "100 bytes", "truncated"}, kTrain),
      command("TextShorterThanAWindow",
              {"train", "--config", "run.ini", "--train.run_dir=new", "--data.window=1000000"},
              {kPrefix + ".bin", "less than one window of 1000000"}),
      std::move(one_window),
  };
}

}  // namespace

std::vector<BadInput> bad_token_files() {
  std::vector<BadInput> all = wrong_files();
  for (BadInput& row : wrong_tokens()) all.push_back(std::move(row));
  return all;
}

}  // namespace red::test

// Texts and tokenizers.
#include "integration/bad_input.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

/// One file, and what `data build` must say about it, with a tokenizer that is right.
BadInput text(std::string name, std::string file, std::string bytes, std::vector<std::string> message) {
  return {std::move(name),
          {{file, std::move(bytes)}},
          {"data", "build", "--tokenizer", "t.model", "--out", "x", file},
          std::move(message),
          ExitCode::data,
          copy_good_inputs};
}

/// A command with the good inputs at hand.
BadInput command(std::string name, std::vector<std::string> args, std::vector<std::string> message,
                 ExitCode code = ExitCode::data) {
  return {std::move(name), {}, std::move(args), std::move(message), code, copy_good_inputs};
}

const std::string kLine = "{\"text\": \"a\"}\n";

std::vector<BadInput> wrong_texts() {
  return {
      text("BadLine", "x.jsonl", kLine + "{\"text\": \"b\"\n", {"x.jsonl:2", "JSON", "--max-bad-lines"}),
      text("BadLineBehindBlankLines", "x.jsonl", kLine + "\n\n" + kLine + "nonsense\n",
           {"x.jsonl:5", "JSON"}),
      text("LineThatIsNoObject", "x.jsonl", kLine + "[1, 2]\n", {"x.jsonl:2", "no JSON object"}),
      text("LineWithoutTheField", "x.jsonl", kLine + "{\"body\": \"b\"}\n",
           {"x.jsonl:2", "no field \"text\""}),
      text("FieldThatIsNoText", "x.jsonl", kLine + "{\"text\": 3}\n", {"x.jsonl:2", "no string"}),
      text("NoUtf8", "x.txt", "caf\xe9", {"x.txt", "invalid UTF-8", "byte 3"}),
      text("NoUtf8InJson", "x.jsonl", kLine + "{\"text\": \"caf\xe9\"}\n", {"x.jsonl:2"}),
      text("HalfACharacterAtTheEnd", "x.txt", "caf\xc3", {"x.txt", "invalid UTF-8", "byte 3"}),
      command("BadLineInTokenizerTraining",
              {"tokenizer", "train", "--out", "x.model", "run.ini", "--format=jsonl"}, {"run.ini:1", "JSON"}),
      command("MissingText", {"data", "build", "--tokenizer", "t.model", "--out", "x", "gone.jsonl"},
              {"gone.jsonl", "No such file"}, ExitCode::io),
      command("FolderAsText", {"data", "build", "--tokenizer", "t.model", "--out", "x", "run"},
              {"run", "folder"}, ExitCode::configuration),
      command("MissingOutputFolder",
              {"data", "build", "--tokenizer", "t.model", "--out", "gone/x", "wiki.jsonl"},
              {"gone/x", "No such file"}, ExitCode::io),
      command("TooManyPieces",
              {"tokenizer", "train", "--out", "x.model", "--vocab-size", "30000", "wiki.jsonl"},
              {"30000", "too small"}, ExitCode::configuration),
  };
}

/// Ids for `tokenizer decode`.
BadInput ids(std::string name, std::string text, std::vector<std::string> message) {
  BadInput row = command(std::move(name), {"tokenizer", "decode", "--tokenizer", "t.model", "ids.txt"},
                         std::move(message));
  row.files = {{"ids.txt", std::move(text)}};
  return row;
}

std::vector<BadInput> wrong_tokenizers() {
  const auto encode = [](std::string name, std::string tokenizer, std::vector<std::string> message) {
    return command(std::move(name),
                   {"tokenizer", "encode", "--tokenizer", std::move(tokenizer), "wiki.jsonl"},
                   std::move(message));
  };
  BadInput empty = encode("EmptyTokenizer", "empty.model", {"empty.model", "no SentencePiece model"});
  empty.files = {{"empty.model", ""}};
  BadInput half = encode("TruncatedTokenizer", "t.model", {"t.model", "no SentencePiece model"});
  half.prepare = [](const std::filesystem::path& here) {
    copy_good_inputs(here);
    const std::string whole = read_bytes(here / "t.model");
    write_bytes(here / "t.model", whole.substr(0, whole.size() / 2));
  };
  return {
      // The hint must be a command that exists: --out, not --output.
      encode("MissingTokenizer", "gone.model",
             {"gone.model: not found", "redllm tokenizer train --out gone.model"}),
      encode("TextAsTokenizer", "wiki.jsonl", {"wiki.jsonl", "no SentencePiece model"}),
      std::move(empty),
      std::move(half),
      command("FolderAsTokenizer", {"tokenizer", "encode", "--tokenizer", "run", "wiki.jsonl"},
              {"run", "folder"}, ExitCode::io),
      command("TrainingWithoutTokenizer", {"train", "--config", "run.ini", "--data.tokenizer=gone.model"},
              {"gone.model", "not found"}),
      command("TokenizerOfAnotherSize",
              {"train", "--config", "run.ini", "--model.vocab_size=321", "--train.run_dir=x"},
              {"320 pieces", "model.vocab_size = 321"}, ExitCode::configuration),
      command("FolderToEncode", {"tokenizer", "encode", "--tokenizer", "t.model", "run"}, {"run:", "folder"},
              ExitCode::io),
      command("MissingTextToEncode", {"tokenizer", "encode", "--tokenizer", "t.model", "gone.txt"},
              {"gone.txt", "No such file"}, ExitCode::io),
      ids("WordAsTokenId", "1 abc 2", {"'abc'", "no token id"}),
      ids("TokenIdTooLargeForAnyNumber", "1 99999999999", {"'99999999999'", "no token id"}),
      ids("TokenIdOutsideTheVocabulary", "1 320", {"320", "outside the vocabulary"}),
      ids("NegativeTokenId", "-1", {"-1", "outside the vocabulary"}),
  };
}

}  // namespace

std::vector<BadInput> bad_texts() {
  std::vector<BadInput> all = wrong_texts();
  for (BadInput& row : wrong_tokenizers()) all.push_back(std::move(row));
  return all;
}

}  // namespace red::test

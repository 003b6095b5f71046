#include "data/corpus_reader.hpp"

#include <gtest/gtest.h>

#include "data/compressed.hpp"
#include "data/test_files.hpp"
#include "data/texts.hpp"
#include "data/utf8.hpp"

namespace red::data {
namespace {

using Texts = std::vector<std::string>;

class Corpus : public testing::Test {
 protected:
  std::vector<RawPiece> pieces(CorpusOptions options) {
    CorpusReader reader(std::move(options));
    std::vector<RawPiece> all;
    while (auto piece = reader.next()) all.push_back(std::move(*piece));
    EXPECT_EQ(reader.num_file_bytes_read(), reader.num_file_bytes());
    return all;
  }
  /// Documents of one file, put together from their pieces.
  Texts documents(const std::string& name, const std::string& bytes,
                  CorpusOptions::Split split = CorpusOptions::Split::file,
                  const std::string& separator = "") {
    write_file(folder_ / name, bytes);
    CorpusOptions options;
    options.inputs = {folder_ / name};
    options.split = split;
    options.separator = separator;
    Texts texts(1);
    for (const RawPiece& piece : pieces(options)) {
      EXPECT_LE(piece.bytes.size(), kMaxPieceBytes);
      EXPECT_TRUE(bytes.substr(piece.offset, piece.bytes.size()) == piece.bytes) << piece.offset;
      texts.back() += piece.bytes;
      if (piece.ends_document) texts.emplace_back();
    }
    EXPECT_EQ(texts.back(), "");  // the last document was ended
    texts.pop_back();
    return texts;
  }
  TempFolder folder_;
};

TEST_F(Corpus, JsonLines) {
  write_file(folder_ / "a.jsonl",
             "\xef\xbb\xbf{\"text\":\"one\"}\n\n  \r\n{\"text\":\"two\"}\r\nbroken\n{\"text\":\"last\"}");
  write_file(folder_ / "b.ndjson", "{\"text\":\"more\"}\n");
  CorpusOptions options;
  options.inputs = {folder_ / "a.jsonl", folder_ / "b.ndjson"};
  const auto all = pieces(options);
  ASSERT_EQ(all.size(), 5U);
  EXPECT_EQ(all[0].bytes, "{\"text\":\"one\"}\n");
  EXPECT_EQ(all[0].line, 1);
  EXPECT_EQ(all[1].line, 4);  // blank lines count as lines, not as documents
  EXPECT_EQ(all[2].bytes, "broken\n");
  EXPECT_EQ(all[2].line, 5);
  EXPECT_EQ(all[3].bytes, "{\"text\":\"last\"}");
  EXPECT_EQ(all[4].line, 1);
  EXPECT_EQ(all[4].file, (folder_ / "b.ndjson").string());
  for (const RawPiece& piece : all) EXPECT_TRUE(piece.is_json && piece.ends_document && !piece.is_too_long);
}

TEST_F(Corpus, LinesBeyondTheLimitAreLeftOutAndCounted) {
  write_file(folder_ / "a.jsonl", "{}\n" + std::string(kMaxLineBytes + 5, 'x') + "\n{\"text\":1}\n");
  CorpusOptions options;
  options.inputs = {folder_ / "a.jsonl"};
  const auto all = pieces(options);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_TRUE(all[1].is_too_long);
  EXPECT_EQ(all[1].line, 2);
  EXPECT_TRUE(all[1].bytes.empty());
  EXPECT_EQ(all[2].line, 3);
  EXPECT_EQ(all[2].bytes, "{\"text\":1}\n");
}

TEST_F(Corpus, ACompressedFileThatIsCutOffIsNoShorterCorpus) {
  std::string lines;
  for (int i = 0; i < 20000; ++i) lines += "{\"text\":\"line " + std::to_string(i * 7919) + "\"}\n";
  for (const auto& [name, bytes] :
       {std::pair("a.jsonl.gz", gzip(lines)), std::pair("a.jsonl.zst", zstd(lines))}) {
    CorpusOptions options;
    options.inputs = {folder_ / name};
    write_file(folder_ / name, bytes);
    EXPECT_EQ(pieces(options).size(), 20000U);
    write_file(folder_ / name, bytes.substr(0, bytes.size() / 2));
    const std::string text = message_of<DataError>([&] { pieces(options); });
    EXPECT_NE(text.find(name), std::string::npos) << text;
    EXPECT_NE(text.find("cut off"), std::string::npos) << text;
  }
}

TEST_F(Corpus, FormatsByNameAndByOption) {
  const std::string line = "{\"text\":\"x\"}\n";
  const auto is_json = [&](const std::string& name, CorpusOptions::Format format) {
    write_file(folder_ / name, name.ends_with(".gz")    ? gzip(line)
                               : name.ends_with(".zst") ? zstd(line)
                                                        : line);
    CorpusOptions options;
    options.inputs = {folder_ / name};
    options.format = format;
    const auto all = pieces(options);
    EXPECT_EQ(all.at(0).bytes, line) << name;
    return all.at(0).is_json;
  };
  using Format = CorpusOptions::Format;
  EXPECT_TRUE(is_json("a.jsonl", Format::by_name));
  EXPECT_TRUE(is_json("a.json", Format::by_name));
  EXPECT_TRUE(is_json("a.jsonl.gz", Format::by_name));
  EXPECT_TRUE(is_json("a.ndjson.zst", Format::by_name));
  EXPECT_FALSE(is_json("a.txt.zst", Format::by_name));
  EXPECT_FALSE(is_json("a.txt", Format::by_name));
  EXPECT_FALSE(is_json("README", Format::by_name));
  EXPECT_TRUE(is_json("a.txt", Format::jsonl));
  EXPECT_FALSE(is_json("a.jsonl", Format::text));
}

TEST_F(Corpus, AWholeFileIsOneDocument) {
  EXPECT_EQ(documents("a.txt", "one\n\ntwo\n"), (Texts{"one\n\ntwo\n"}));
  EXPECT_EQ(documents("a.txt", ""), Texts{});
  std::string long_text;
  while (long_text.size() < 3 * kMaxPieceBytes) {
    for (const std::string& text : make_texts(40)) long_text += text;
  }
  EXPECT_TRUE(documents("a.txt", long_text) == Texts{long_text});
}

TEST_F(Corpus, LongDocumentsAreCutWhereNoTokenReaches) {
  const auto cuts = [&](const std::string& unit) {
    std::string text;
    while (text.size() < 2 * kMaxPieceBytes + 1000) text += unit;
    write_file(folder_ / "a.txt", text);
    CorpusOptions options;
    options.inputs = {folder_ / "a.txt"};
    auto all = pieces(options);
    std::string joined;
    for (const RawPiece& piece : all) {
      EXPECT_EQ(find_invalid_utf8(piece.bytes), std::string::npos);
      joined += piece.bytes;
    }
    EXPECT_TRUE(joined == text) << unit;
    EXPECT_GE(all.size(), 3U);
    return all;
  };
  for (const RawPiece& piece : cuts("some  words 漢字 and ")) {
    if (piece.offset > 0) {
      EXPECT_EQ(piece.bytes.front(), ' ');
    }
  }
  const auto lines = cuts("line\n\n\n");
  for (std::size_t i = 0; i + 1 < lines.size(); ++i) {
    EXPECT_EQ(lines[i].bytes.back(), '\n');
    EXPECT_EQ(lines[i + 1].bytes.front(), 'l');
  }
  cuts("漢字");  // no place at all: between characters
  cuts("x");
}

TEST_F(Corpus, BytesThatAreNoTextGetThroughInPieces) {
  const std::string bytes(2 * kMaxPieceBytes + 17, '\x80');
  EXPECT_TRUE(documents("a.txt", bytes) == Texts{bytes});
  EXPECT_TRUE(documents("a.txt", bytes, CorpusOptions::Split::blank_lines) == Texts{bytes});
}

TEST_F(Corpus, SplitAtBlankLines) {
  constexpr auto split = CorpusOptions::Split::blank_lines;
  EXPECT_EQ(documents("a.txt", "one\ntwo\n\n \t\r\nthree\n", split), (Texts{"one\ntwo\n", "three\n"}));
  EXPECT_EQ(documents("a.txt", "\n\none", split), (Texts{"one"}));
  EXPECT_EQ(documents("a.txt", "one\n\n\n", split), (Texts{"one\n"}));
  EXPECT_EQ(documents("a.txt", "one\n\n  ", split), (Texts{"one\n"}));
  EXPECT_EQ(documents("a.txt", "\n\n", split), Texts{});
}

TEST_F(Corpus, SplitAtASeparator) {
  constexpr auto split = CorpusOptions::Split::separator;
  EXPECT_EQ(documents("a.txt", "one\n\ntwo\n===\nthree\r\n===\r\nfour ===\n", split, "==="),
            (Texts{"one\n\ntwo\n", "three\r\n", "four ===\n"}));
  EXPECT_EQ(documents("a.txt", "===\n===\none\n===", split, "==="), (Texts{"one\n"}));
}

TEST_F(Corpus, LongLinesAndLongDocumentsSplitByLines) {
  constexpr auto split = CorpusOptions::Split::blank_lines;
  std::string words, solid(3 * kMaxPieceBytes, 'y'), many;
  while (words.size() < 3 * kMaxPieceBytes) words += "word and  words ";
  while (many.size() < 3 * kMaxPieceBytes) many += "a line of text\n";
  many.pop_back();  // the documents below end their lines themselves
  for (const std::string& line : {words, solid, many}) {
    // Not EXPECT_EQ: it would work out the difference of texts of megabytes.
    EXPECT_TRUE(documents("a.txt", "one\n\nshort\n" + line + "\n\nlast\n", split) ==
                (Texts{"one\n", "short\n" + line + "\n", "last\n"}))
        << line.substr(0, 20);
    EXPECT_TRUE(documents("a.txt", line, split) == Texts{line}) << line.substr(0, 20);
  }
  // A long line whose tail happens to be white space is no border.
  const std::string tail = solid + std::string(kMaxPieceBytes, ' ') + "\nend\n";
  EXPECT_TRUE(documents("a.txt", tail, split) == Texts{tail});
}

TEST_F(Corpus, InputsThatCannotBeRead) {
  CorpusOptions options;
  EXPECT_EQ(message_of<ConfigError>([&] { CorpusReader reader(options); }),
            "no input: name at least one file of text");
  options.inputs = {folder_.path()};
  EXPECT_NE(
      message_of<ConfigError>([&] { CorpusReader reader(options); }).find("is a folder; give its files"),
      std::string::npos);
  options.inputs = {folder_ / "none.txt"};
  EXPECT_NE(
      message_of<IoError>([&] { CorpusReader reader(options); }).find("none.txt: No such file or directory"),
      std::string::npos);
}

}  // namespace
}  // namespace red::data

#include "data/piece_parser.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "data/test_files.hpp"

namespace red::data {
namespace {

RawPiece json(std::string line) {
  RawPiece piece;
  piece.bytes = std::move(line);
  piece.file = "f.jsonl";
  piece.is_json = true;
  piece.line = 7;
  return piece;
}

class Parser : public testing::Test {
 protected:
  std::string text(std::string line) {
    RawPiece piece = json(std::move(line));
    BadLine bad;
    const auto found = parser_.parse(piece, bad);
    return found ? std::string(*found) : "bad: " + bad.place + " " + bad.reason;
  }
  std::mutex long_lines_;
  PieceParser parser_{"text", long_lines_};
};

TEST_F(Parser, FindsTheField) {
  EXPECT_EQ(text("{\"text\":\"plain\"}"), "plain");
  EXPECT_EQ(
      text("  {\"meta\": {\"text\": \"inner\"}, \"n\": [1, 2.5e3, null, true], \"text\" : \"outer\"}\r\n"),
      "outer");
  EXPECT_EQ(text("{\"text\":\"\"}"), "");
  EXPECT_EQ(text("{\"text\":\"tab\\t line\\n quote\\\" \\u00e9 \\ud83d\\ude00 \\u0000!\"}"),
            std::string("tab\t line\n quote\" é 😀 \0!", 28));
  EXPECT_EQ(text("{\"text\":\"raw 漢字 \xe2\x80\xa8 line separator\"}"),
            "raw 漢字 \xe2\x80\xa8 line separator");
  std::mutex mutex;
  PieceParser other("body", mutex);
  RawPiece piece = json("{\"text\":\"a\",\"body\":\"b\"}");
  BadLine bad;
  EXPECT_EQ(other.parse(piece, bad), "b");
}

TEST_F(Parser, SaysWhatIsBadAndWhere) {
  EXPECT_EQ(text("{\"text\":\"cut").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"text\":\"x\"").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"text\":\"x\"} more").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"n\": tru, \"text\":\"x\"}").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"text\":\"\xff\"}").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"text\":\"\\ud800 alone\"}").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"text\":\"\\ude00 alone\"}").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("{\"text\":\"\\ude00\\ud83d turned\"}").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  // A surrogate as three bytes, a character too long for its value, one that is cut.
  for (const char* bytes : {"\xed\xa0\x80", "\xc0\xaf", "\xe6\xbc"}) {
    EXPECT_EQ(text(fmt::format("{{\"text\":\"{}\"}}", bytes)).substr(0, 33),
              "bad: f.jsonl:7 is no valid JSON: ");
  }
  EXPECT_EQ(text("{\"text\":\"line\nbreak\"}").substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  EXPECT_EQ(text("[\"text\"]"), "bad: f.jsonl:7 is no JSON object");
  EXPECT_EQ(text("\"text\""), "bad: f.jsonl:7 is no JSON object");
  EXPECT_EQ(text("{\"Text\":\"x\"}"), "bad: f.jsonl:7 has no field \"text\"");
  EXPECT_EQ(text("{\"text\":5}"), "bad: f.jsonl:7 its field \"text\" is no string");
  EXPECT_EQ(text("{\"text\":null}"), "bad: f.jsonl:7 its field \"text\" is no string");
  RawPiece piece = json("");
  piece.is_too_long = true;
  BadLine bad;
  EXPECT_FALSE(parser_.parse(piece, bad));
  EXPECT_EQ(bad.reason, "is longer than 32 MiB");
  EXPECT_EQ(text("{\"text\":\"and on it goes\"}"), "and on it goes");
}

TEST_F(Parser, LongLines) {
  const std::string body(5 << 20, 'z');
  EXPECT_EQ(text("{\"a\":1,\"text\":\"" + body + "\"}"), body);
  EXPECT_EQ(text("{\"a\":1,\"text\":\"" + body).substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
  const std::string nested = std::string(3 << 20, '[') + std::string(3 << 20, ']');
  EXPECT_EQ(text(nested).substr(0, 33), "bad: f.jsonl:7 is no valid JSON: ");
}

TEST_F(Parser, PairsAreTwoFieldsOfALine) {
  std::mutex mutex;
  PieceParser parser("inputs", mutex);
  BadLine bad;
  const auto parse = [&](const std::string& line) {
    RawPiece piece;
    piece.file = "f.jsonl";
    piece.is_json = true;
    piece.line = 9;
    piece.bytes = line;
    const auto pair = parser.parse_pair(piece, "targets", bad);
    return pair ? std::string(pair->inputs) + "|" + std::string(pair->targets)
                : bad.place + ": " + bad.reason;
  };
  EXPECT_EQ(parse(R"({"targets":"b\n","x":1,"inputs":"a"})"), "a|b\n");
  EXPECT_EQ(parse(R"({"inputs":"","targets":"b"})"), "|b");
  EXPECT_EQ(parse(R"({"inputs":"a","targets":""})"), "f.jsonl:9: its field \"targets\" is empty");
  EXPECT_EQ(parse(R"({"inputs":"a"})"), "f.jsonl:9: has no field \"targets\"");
  EXPECT_EQ(parse(R"({"targets":"a"})"), "f.jsonl:9: has no field \"inputs\"");
  EXPECT_EQ(parse(R"({"inputs":"a","targets":2})"), "f.jsonl:9: its field \"targets\" is no string");
  // Longer than what parsers keep tables for.
  const std::string inputs(1 << 20, 'i'), targets(1 << 20, 't');
  EXPECT_EQ(parse("{\"inputs\":\"" + inputs + "\",\"targets\":\"" + targets + "\"}"), inputs + "|" + targets);
}

TEST_F(Parser, TextIsTakenAsItIs) {
  RawPiece piece;
  piece.file = "f.txt";
  piece.bytes = "{\"text\": not JSON}\n";
  BadLine bad;
  EXPECT_EQ(parser_.parse(piece, bad), "{\"text\": not JSON}\n");
  piece.bytes = "abc\xff";
  piece.offset = 1000;
  EXPECT_EQ(message_of<DataError>([&] { parser_.parse(piece, bad); }),
            "f.txt: invalid UTF-8 at byte 1003; convert the file, for instance with iconv");
}

TEST(BadLines, AreCountedUpToALimit) {
  BadLines none(0);
  EXPECT_EQ(message_of<DataError>([&] {
              none.add({"f:3", "is no JSON object"});
            }),
            "f:3: is no JSON object; mend it, or let bad lines be skipped with --max-bad-lines N");
  BadLines two(2);
  two.add({"f:1", "x"});
  two.add({"f:2", "x"});
  EXPECT_EQ(two.count(), 2);
  EXPECT_EQ(message_of<DataError>([&] {
              two.add({"f:9", "x"});
            }),
            "f:9: x; bad line number 3, --max-bad-lines allows 2");
}

}  // namespace
}  // namespace red::data

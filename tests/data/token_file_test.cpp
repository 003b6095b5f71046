#include "data/token_file.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "base/philox.hpp"
#include "data/test_files.hpp"
#include "data/token_file_writer.hpp"

namespace red::data {
namespace {

/// What the independent reader in Python prints.
std::string python_reads(const std::filesystem::path& prefix) {
  const std::string command = std::string("/usr/bin/python3 ") + RED_SOURCE_DIR +
                              "/tests/data/read_megatron.py " + prefix.string() + " 2>&1";
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(command.c_str(), "r"), ::pclose);
  std::string output;
  char buffer[4096];
  while (const std::size_t got = std::fread(buffer, 1, sizeof(buffer), pipe.get()))
    output.append(buffer, got);
  return output;
}

std::string as_text(const std::string& dtype, const Documents& documents) {
  std::string text = "dtype " + dtype + "\n";
  for (const auto& document : documents) text += fmt::format("{}\n", fmt::join(document, " "));
  return text;
}

/// An index by hand, so that wrong ones can be made too.
std::string index_bytes(uint8_t type, const std::vector<int32_t>& lengths,
                        const std::vector<int64_t>& offsets, const std::vector<int64_t>& boundaries) {
  std::string bytes("MMIDIDX\0\0", 9);
  const auto add = [&](auto value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof(value)); };
  add(uint64_t{1});
  add(type);
  add(static_cast<uint64_t>(lengths.size()));
  add(static_cast<uint64_t>(boundaries.size()));
  for (const auto x : lengths) add(x);
  for (const auto x : offsets) add(x);
  for (const auto x : boundaries) add(x);
  return bytes;
}

TEST(TokenFile, BytesAreMegatrons) {
  const TempFolder folder;
  write_tokens(folder / "a", {{1, 2, 3}, {4, 65499}});
  EXPECT_EQ(read_file(folder / "a.bin"), std::string("\1\0\2\0\3\0\4\0\xdb\xff", 10));
  EXPECT_EQ(read_file(folder / "a.idx"), index_bytes(8, {3, 2}, {0, 6}, {0, 1, 2}));
  EXPECT_FALSE(std::filesystem::exists(folder / "a.bin.partial"));
  EXPECT_FALSE(std::filesystem::exists(folder / "a.idx.partial"));
}

TEST(TokenFile, AnIndependentReaderAgrees) {
  const TempFolder folder;
  Documents documents;
  for (uint64_t d = 0; d < 9000; ++d) {  // more documents than the writer sums up at a time
    auto& document = documents.emplace_back();
    for (uint64_t i = 0; i < philox(1, d)[0] % 7; ++i)
      document.push_back(static_cast<int32_t>(philox(2, d, i)[0] % 60000));
  }
  write_tokens(folder / "narrow", documents);
  EXPECT_EQ(python_reads(folder / "narrow"), as_text("uint16", documents));
  documents[17] = {70000, 3};
  write_tokens(folder / "wide", documents, TokenType::i32);
  EXPECT_EQ(python_reads(folder / "wide"), as_text("int32", documents));

  const TokenFile file(folder / "wide");
  EXPECT_EQ(file.num_documents(), 9000);
  int64_t token = 0;
  for (std::size_t d = 0; d < documents.size(); ++d) {
    ASSERT_EQ(file.document_begin(static_cast<int64_t>(d)), token);
    std::vector<int32_t> read(documents[d].size());
    file.read(token, read);
    ASSERT_EQ(read, documents[d]);
    for (std::size_t i = 0; i < read.size(); ++i)
      ASSERT_EQ(file.document_of(token++), static_cast<int64_t>(d));
  }
  EXPECT_EQ(file.num_tokens(), token);
  EXPECT_EQ(file.document_begin(9000), token);
}

TEST(TokenFile, DocumentsOfTwoSequences) {
  const TempFolder folder;
  const Documents inputs = {{1, 2}, {}, {3}}, targets = {{4}, {5, 6}, {7, 8, 9}};
  TokenFileWriter writer(folder / "p", TokenType::u16);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    writer.append(inputs[i]);
    writer.end_sequence();
    writer.append(targets[i]);
    writer.end_document();
  }
  writer.finish();
  EXPECT_EQ(read_file(folder / "p.idx"),
            index_bytes(8, {2, 1, 0, 2, 1, 3}, {0, 4, 6, 6, 10, 12}, {0, 2, 4, 6}));
  EXPECT_EQ(python_reads(folder / "p"), as_text("uint16", {{1, 2, 4}, {5, 6}, {3, 7, 8, 9}}));
  const TokenFile file(folder / "p");
  EXPECT_TRUE(file.holds_pairs());
  EXPECT_EQ(file.num_documents(), 3);
  EXPECT_EQ(file.num_sequences(), 6);
  const std::vector<int64_t> begins = {0, 2, 3, 3, 5, 6, 9};
  for (std::size_t s = 0; s < begins.size(); ++s)
    EXPECT_EQ(file.sequence_begin(static_cast<int64_t>(s)), begins[s]);
  EXPECT_EQ(file.document_begin(2), 5);
  write_tokens(folder / "t", {{1, 2, 4}, {5, 6}, {3, 7, 8, 9}});
  const TokenFile text(folder / "t");
  EXPECT_FALSE(text.holds_pairs());
  EXPECT_EQ(text.num_sequences_of(1), 1);
  // What a checkpoint remembers tells lengths and kinds apart.
  EXPECT_EQ(text.contents(), TokenFile(folder / "t").contents());
  EXPECT_NE(text.contents(), file.contents());
  write_tokens(folder / "u", {{1, 2}, {4, 5, 6}, {3, 7, 8, 9}});
  EXPECT_NE(TokenFile(folder / "u").contents(), text.contents());
}

TEST(TokenFile, TypeByVocabulary) {
  EXPECT_EQ(token_type_for(32768), TokenType::u16);
  EXPECT_EQ(token_type_for(65499), TokenType::u16);
  EXPECT_EQ(token_type_for(65500), TokenType::i32);
}

TEST(TokenFile, EveryIntegerTypeIsRead) {
  const TempFolder folder;
  const auto check = [&](TokenType type, const std::string& bin, const std::vector<int32_t>& expected) {
    const auto width = static_cast<int32_t>(size_of(type));
    // Two sequences in one document, as Megatron makes of split sentences.
    write_file(folder / "t.bin", bin);
    write_file(folder / "t.idx", index_bytes(static_cast<uint8_t>(type), {1, 1}, {0, width}, {0, 2}));
    const TokenFile file(folder / "t");
    std::vector<int32_t> tokens(2);
    file.read(0, tokens);
    EXPECT_EQ(tokens, expected) << name_of(type);
    EXPECT_EQ(file.num_documents(), 1);
    EXPECT_EQ(file.num_sequences(), 2);
    EXPECT_EQ(file.document_of(1), 0);
  };
  check(TokenType::u8, "\x07\xff", {7, 255});
  check(TokenType::i8, "\x07\xff", {7, -1});
  check(TokenType::i16, std::string("\7\0\xff\xff", 4), {7, -1});
  check(TokenType::u16, std::string("\7\0\xff\xff", 4), {7, 65535});
  check(TokenType::i32, std::string("\7\0\0\0\0\0\1\0", 8), {7, 65536});
  check(TokenType::i64, std::string("\7\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0", 16), {7, 65536});
}

TEST(TokenFile, ReadsAcrossItsBufferAndEmptyFiles) {
  const TempFolder folder;
  std::vector<int32_t> document(20011);
  for (std::size_t i = 0; i < document.size(); ++i) document[i] = static_cast<int32_t>(i % 60013);
  write_tokens(folder / "long", {document});
  const TokenFile file(folder / "long");
  std::vector<int32_t> part(9999);
  file.read(10012, part);
  EXPECT_EQ(part, std::vector<int32_t>(document.begin() + 10012, document.end()));

  write_tokens(folder / "empty", {});
  EXPECT_EQ(TokenFile(folder / "empty").num_documents(), 0);
  write_tokens(folder / "gaps", {{}, {5}, {}, {}, {6, 7}, {}});
  const TokenFile gaps(folder / "gaps");
  EXPECT_EQ(gaps.document_of(0), 1);
  EXPECT_EQ(gaps.document_of(1), 4);
  EXPECT_EQ(gaps.document_of(2), 4);
}

TEST(TokenFile, UnfinishedWritersLeaveNothing) {
  const TempFolder folder;
  write_tokens(folder / "a", {{1}});
  const std::string before = read_file(folder / "a.bin");
  {
    TokenFileWriter writer(folder / "a", TokenType::u16);
    writer.append(std::vector<int32_t>{9, 9});
    writer.end_document();
  }
  EXPECT_EQ(read_file(folder / "a.bin"), before);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 2);
}

TEST(TokenFile, PrefixIsFoundWithAndWithoutItsEnding) {
  const TempFolder folder;
  write_tokens(folder / "wiki.en_text_document", {{1}});
  const auto full = folder / "wiki.en_text_document";
  EXPECT_EQ(resolve_token_prefix(folder / "wiki.en"), full);
  EXPECT_EQ(resolve_token_prefix(full), full);
  EXPECT_NE(
      message_of<DataError>([&] { resolve_token_prefix(folder / "no"); }).find("no_text_document.idx exists"),
      std::string::npos);
}

class BadTokenFile : public testing::Test {
 protected:
  /// The message for this index beside ten bytes of tokens, without the folder's name.
  std::string error(const std::string& idx) {
    write_file(folder_ / "x.bin", "0123456789");
    write_file(folder_ / "x.idx", idx);
    std::string text = message_of<DataError>([&] { TokenFile file(folder_ / "x"); });
    const std::string path = folder_.path().string() + "/";
    for (std::size_t at; (at = text.find(path)) != std::string::npos;) text.erase(at, path.size());
    return text;
  }
  TempFolder folder_;
  const std::string good_ = index_bytes(8, {3, 2}, {0, 6}, {0, 1, 2});
};

TEST_F(BadTokenFile, TheGoodOneIsGood) {
  EXPECT_EQ(error(good_), "no error");
}

TEST_F(BadTokenFile, Header) {
  EXPECT_EQ(error(""), "x.idx: 0 bytes, shorter than the header of 34; it was truncated");
  EXPECT_EQ(error(good_.substr(0, 33)), "x.idx: 33 bytes, shorter than the header of 34; it was truncated");
  std::string bad = good_;
  bad[0] = 'N';
  EXPECT_EQ(error(bad), "x.idx: does not begin with MMIDIDX; it is no index of Megatron token files");
  bad = good_;
  bad[9] = 2;
  EXPECT_EQ(error(bad), "x.idx: version 2 of the index; this program reads version 1");
  bad = good_;
  bad[17] = 9;
  EXPECT_EQ(error(bad), "x.idx: unknown type code 9 of tokens (1 ... 8 exist)");
  bad[17] = 0;
  EXPECT_EQ(error(bad), "x.idx: unknown type code 0 of tokens (1 ... 8 exist)");
  bad[17] = 7;
  EXPECT_EQ(error(bad), "x.idx: holds f32 values, not token ids");
}

TEST_F(BadTokenFile, Sizes) {
  EXPECT_EQ(error(good_.substr(0, good_.size() - 1)),
            "x.idx: 81 bytes do not fit 2 sequences and 3 document boundaries (34 + 12 S + 8 D); it was "
            "truncated or "
            "its header is damaged");
  EXPECT_EQ(error(good_ + "x").substr(0, 26), "x.idx: 83 bytes do not fit");
  std::string bad = good_;
  bad.replace(18, 8, 8, '\xff');  // 2^64 - 1 sequences: products would overflow
  EXPECT_EQ(error(bad).substr(0, 54), "x.idx: 82 bytes do not fit 18446744073709551615 sequen");
  bad = good_;
  bad.replace(26, 8, 8, '\xff');
  EXPECT_EQ(error(bad).substr(0, 48), "x.idx: 82 bytes do not fit 2 sequences and 18446");
  // (2^62 + 2) sequences wrap 12 S to the right size in 64 bits.
  bad = good_;
  bad[25] = '\x40';
  EXPECT_EQ(error(bad).substr(0, 26), "x.idx: 82 bytes do not fit");
  EXPECT_EQ(error(index_bytes(8, {}, {}, {})), "x.idx: no document boundaries, not even the first, 0");
}

TEST_F(BadTokenFile, Arrays) {
  EXPECT_EQ(error(index_bytes(8, {6, -1}, {0, 12}, {0, 1, 2})), "x.idx: sequence 1 has the length -1");
  EXPECT_EQ(error(index_bytes(8, {3, 2}, {0, 7}, {0, 1, 2})),
            "x.idx: sequence 1 begins at byte 7 of the .bin, the lengths before it end at 6");
  EXPECT_EQ(error(index_bytes(8, {3, 2}, {2, 8}, {0, 1, 2})),
            "x.idx: sequence 0 begins at byte 2 of the .bin, the lengths before it end at 0");
  const std::string rise = "; boundaries rise from 0 to the 2 sequences";
  EXPECT_EQ(error(index_bytes(8, {3, 2}, {0, 6}, {1, 1, 2})), "x.idx: document boundary 0 is 1" + rise);
  EXPECT_EQ(error(index_bytes(8, {3, 2}, {0, 6}, {0, 2, 1, 2})), "x.idx: document boundary 2 is 1" + rise);
  EXPECT_EQ(error(index_bytes(8, {3, 2}, {0, 6}, {0, 1})), "x.idx: document boundary 1 is 1" + rise);
  EXPECT_EQ(error(index_bytes(8, {3, 2}, {0, 6}, {0, 3, 2})), "x.idx: document boundary 1 is 3" + rise);
}

TEST_F(BadTokenFile, TokensAndIndexDisagree) {
  EXPECT_EQ(error(index_bytes(8, {3, 3}, {0, 6}, {0, 1, 2})),
            "x.bin: 10 bytes, but its .idx lists 6 tokens of type u16, 12 bytes; it was truncated, or the "
            "two files do "
            "not belong together");
  EXPECT_EQ(error(index_bytes(8, {3}, {0}, {0, 1})),
            "x.bin: 10 bytes, but its .idx lists 3 tokens of type u16, 6 bytes; the two files do not belong "
            "together");
  std::filesystem::remove(folder_ / "x.bin");
  EXPECT_NE(message_of<DataError>([&] { TokenFile file(folder_ / "x"); }).find("x.bin: not found"),
            std::string::npos);
  std::filesystem::remove(folder_ / "x.idx");
  EXPECT_NE(message_of<DataError>([&] { TokenFile file(folder_ / "x"); }).find("x.idx: not found"),
            std::string::npos);
}

TEST_F(BadTokenFile, ValuesThatAreNoIds) {
  write_file(folder_ / "x.bin", std::string("\0\0\0\0\1\0\0\0", 8));
  write_file(folder_ / "x.idx", index_bytes(5, {1}, {0}, {0, 1}));
  const TokenFile file(folder_ / "x");
  std::vector<int32_t> token(1);
  EXPECT_NE(message_of<DataError>([&] {
              file.read(0, token);
            }).find("x.bin: token 0 is 4294967296, no possible id"),
            std::string::npos);
}

TEST_F(BadTokenFile, ShrinkingWhileOpen) {
  write_tokens(folder_ / "y", {{1, 2, 3, 4}});
  const TokenFile file(folder_ / "y");
  std::filesystem::resize_file(folder_ / "y.bin", 4);
  std::vector<int32_t> tokens(4);
  EXPECT_NE(message_of<DataError>([&] { file.read(0, tokens); }).find("ends at byte 4, 4 more were expected"),
            std::string::npos);
}

}  // namespace
}  // namespace red::data

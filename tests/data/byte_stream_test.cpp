#include "data/byte_stream.hpp"

#include <gtest/gtest.h>

#include "data/compressed.hpp"
#include "data/test_files.hpp"
#include "data/texts.hpp"

namespace red::data {
namespace {

std::string long_text() {
  std::string text;
  for (const std::string& part : make_texts(400)) text += part;
  return text;
}

class ByteStreams : public testing::Test {
 protected:
  /// What the stream gives, in reads of `step` bytes.
  std::string read(const std::string& name, const std::string& bytes, std::size_t step = 1 << 16) {
    write_file(folder_ / name, bytes);
    ByteStream stream(folder_ / name);
    std::string text, part(step, '\0');
    while (const std::size_t got = stream.read(part)) text.append(part, 0, got);
    EXPECT_EQ(stream.num_raw_bytes(), bytes.size());
    return text;
  }
  std::string error(const std::string& name, const std::string& bytes) {
    std::string text = message_of<DataError>([&] { read(name, bytes); });
    const std::string path = folder_.path().string() + "/";
    if (const std::size_t at = text.find(path); at != std::string::npos) text.erase(at, path.size());
    return text;
  }
  TempFolder folder_;
};

TEST_F(ByteStreams, GiveTheTextWhateverTheCompression) {
  const std::string text = long_text();
  ASSERT_GT(text.size(), 1U << 18);  // several of every buffer
  for (const std::size_t step : {std::size_t{1} << 16, std::size_t{1000}, text.size() + 7}) {
    EXPECT_EQ(read("t.txt", text, step), text);
    EXPECT_EQ(read("t.gz", gzip(text), step), text);
    EXPECT_EQ(read("t.zst", zstd(text), step), text);
  }
}

TEST_F(ByteStreams, JoinSeveralCompressedParts) {
  EXPECT_EQ(read("t.gz", gzip("one ") + gzip("") + gzip("two")), "one two");
  EXPECT_EQ(read("t.zst", zstd("one ") + zstd("") + zstd("two")), "one two");
}

TEST_F(ByteStreams, NothingIsATextToo) {
  EXPECT_EQ(read("t.txt", ""), "");
  EXPECT_EQ(read("t.gz", gzip("")), "");
  EXPECT_EQ(read("t.zst", zstd("")), "");
}

TEST_F(ByteStreams, EveryCutIsNoticed) {
  const std::string text = make_texts(1)[0];
  for (const auto& [name, bytes] : {std::pair("t.gz", gzip(text)), std::pair("t.zst", zstd(text))}) {
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      ASSERT_NE(error(name, bytes.substr(0, size)), "no error") << name << " cut to " << size;
    }
  }
  EXPECT_EQ(error("t.zst", zstd(text).substr(0, 20)),
            "t.zst: the compressed data ends in the middle of a frame; the file was cut off");
  EXPECT_EQ(error("t.gz", gzip(text).substr(0, 20)).substr(0, 39), "t.gz: damaged or cut off gzip data (gzi");
}

TEST_F(ByteStreams, GarbageIsNoticed) {
  EXPECT_NE(error("t.gz", "plain text under another name"), "no error");
  EXPECT_NE(error("t.zst", "plain text under another name"), "no error");
  EXPECT_NE(error("t.zst", zstd("text") + "garbage behind it"), "no error");
  EXPECT_NE(error("t.gz", gzip("text") + "garbage behind it"), "no error");
}

TEST_F(ByteStreams, FilesThatAreNotThere) {
  EXPECT_NE(message_of<IoError>([&] { ByteStream(folder_ / "none.txt"); }).find("none.txt: No such file"),
            std::string::npos);
  EXPECT_NE(message_of<IoError>([&] { ByteStream(folder_.path()); }).find("it is a folder"),
            std::string::npos);
}

}  // namespace
}  // namespace red::data

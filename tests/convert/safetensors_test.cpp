// safetensors: what is written comes back bit for bit, and a header by somebody else is believed in nothing.
#include "convert/safetensors.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <fstream>
#include <limits>

#include "base/error.hpp"
#include "convert/safetensors_folder.hpp"
#include "support/temporary_folder.hpp"

namespace red::convert {
namespace {

namespace fs = std::filesystem;

class SafetensorsTest : public testing::Test {
 protected:
  fs::path path() const { return folder_.path() / "model.safetensors"; }

  /// A file with this header and so many bytes of data.
  void write(const std::string& header, std::size_t data_bytes, uint64_t header_bytes = 0) const {
    std::ofstream out(path(), std::ios::binary);
    if (header_bytes == 0) header_bytes = header.size();
    out.write(reinterpret_cast<const char*>(&header_bytes), sizeof(header_bytes));
    out << header << std::string(data_bytes, '\0');
  }
  /// Opening it must say this.
  void refuses(const std::string& words) const {
    try {
      const SafetensorsFile file(path());
      ADD_FAILURE() << "accepted, instead of: " << words;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("model.safetensors"), std::string::npos) << error.what();
    }
  }

  test::TemporaryFolder folder_;
};

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}

TEST_F(SafetensorsTest, GivesBackWhatWasWritten) {
  const std::vector<float> matrix = {1.0F,
                                     -0.0F,
                                     1e-40F,
                                     std::numeric_limits<float>::infinity(),
                                     std::numeric_limits<float>::quiet_NaN(),
                                     3.14159274F};
  const std::vector<float> vector = {1.0F, 1.00390625F,
                                     -2.5e38F};  // the second lies between two bf16 numbers
  {
    const std::vector<SafeTensor> tensors = {{.name = "b.matrix", .rows = 2, .cols = 3},
                                             {.name = "a.vector", .dtype = DType::bf16, .rows = 3}};
    SafetensorsWriter writer(path(), tensors, {{"format", "pt"}});
    writer.append(std::span(matrix).first(4));  // pieces need not be rows
    writer.append(std::span(matrix).subspan(4));
    writer.append(vector);
    EXPECT_FALSE(fs::exists(path()));
    writer.publish();
  }
  const SafetensorsFile file(path());
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.tensors()[0].name, "b.matrix");
  EXPECT_EQ(file.tensors()[0].offset % 8, 0U);
  EXPECT_EQ(file.tensors()[0].cols, 3);
  EXPECT_EQ(file.tensors()[1].cols, 0);
  std::vector<float> got(6);
  file.read(file.tensors()[0], 0, got);
  for (std::size_t i = 0; i < 6; ++i)
    EXPECT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(matrix[i]));
  got.resize(2);
  file.read(file.tensors()[1], 1, got);
  EXPECT_EQ(got[0], 1.0F);  // the tie goes to the even one
  EXPECT_EQ(got[1], static_cast<float>(bf16(-2.5e38F)));
}

TEST_F(SafetensorsTest, AFileThatWasNotFinishedIsNotThere) {
  {
    const std::vector<SafeTensor> tensors = {{.name = "x", .rows = 2}};
    SafetensorsWriter writer(path(), tensors, {});
    writer.append(std::vector<float>{1.0F});
    EXPECT_THROW(writer.publish(), LogicError);
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(SafetensorsTest, RefusesFilesThatAreNone) {
  std::ofstream(path()) << "short";
  refuses("is no safetensors file");
  write("{}", 0, 1000);
  refuses("its header would have 1000 bytes");
  write("{}", 0, SafetensorsFile::kMaxHeaderBytes + 1);
  refuses("its header would have");
  write("{}", 0, uint64_t{1} << 63);
  refuses("its header would have");
  write("not json", 0);
  refuses("is no JSON");
  write("[1]", 0);
  refuses("is no JSON object");
  write(std::string(10000, '['), 0);
  refuses("is no JSON");
}

TEST_F(SafetensorsTest, RefusesImpossibleNames) {
  for (const std::string name : {"", "a/b", "../x", "a..b", "/etc/passwd", "two words", "tab\\t"}) {
    write("{" + entry(name, "F32", "[1]", "[0,4]") + "}", 4);
    refuses("impossible name");
  }
  write("{" + entry("x", "F32", "[1]", "[0,4]") + "," + entry("x", "F32", "[1]", "[4,8]") + "}", 8);
  refuses("'x' twice");
}

TEST_F(SafetensorsTest, RefusesImpossibleShapesAndPlaces) {
  const auto refuses_entry = [&](const std::string& dtype, const std::string& shape,
                                 const std::string& offsets, const std::string& words) {
    write("{" + entry("x", dtype, shape, offsets) + "}", 16);
    refuses(words);
  };
  refuses_entry("F16", "[8]", "[0,16]", "save it as float32 or bfloat16");
  refuses_entry("F32", "[]", "[0,16]", "one or two dims");
  refuses_entry("F32", "[1,2,2]", "[0,16]", "one or two dims");
  refuses_entry("F32", "[0]", "[0,0]", "no elements");
  refuses_entry("F32", "[-4]", "[0,16]", "whole number");
  refuses_entry("F32", "[4.0]", "[0,16]", "whole number");
  refuses_entry("F32", "[1000000000000,1000000000000]", "[0,16]", "shape and dtype do not make");
  refuses_entry("F32", "[3]", "[0,16]", "shape and dtype do not make");
  refuses_entry("F32", "[4]", "[16,0]", "lies at 16 ... 0");
  refuses_entry("F32", "[8]", "[0,32]", "lies at 0 ... 32");
  refuses_entry("F32", "[2]", "[0,8]", "is it cut off");
  refuses_entry("F32", "[2]", "[8,16]", "where 0 is the next one");
  refuses_entry("F32", "[4]", "[0]", "not two whole numbers");
  write("{\"x\":{\"dtype\":\"F32\"}}", 16);
  refuses("needs dtype, shape and data_offsets");
  write("{" + entry("x", "F32", "[2]", "[0,8]") + "," + entry("y", "F32", "[3]", "[4,16]") + "}", 16);
  refuses("begins at byte 4");
}

TEST_F(SafetensorsTest, AFolderOfSeveralFiles) {
  const std::vector<SafeTensor> tensors = {
      {.name = "a", .rows = 4}, {.name = "b", .rows = 4}, {.name = "c", .rows = 9}};
  const std::vector<float> values = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  SafetensorsFolderWriter writer(folder_.path(), tensors,
                                 32);  // two of them, and one that is larger than that
  EXPECT_EQ(writer.num_files(), 2U);
  for (const auto& [first, count] : {std::pair(0, 4), std::pair(4, 4), std::pair(8, 9)})
    writer.append(std::span(values).subspan(first, count));
  writer.finish();
  const SafetensorsFolder folder(folder_.path());
  EXPECT_EQ(folder.tensors().size(), 3U);
  std::vector<float> got(2);
  folder.read("c", 7, got);
  EXPECT_EQ(got, (std::vector<float>{15, 16}));
  EXPECT_TRUE(fs::exists(folder_.path() / "model-00002-of-00002.safetensors"));
}

TEST_F(SafetensorsTest, AnIndexMustFitItsFiles) {
  const auto refuses_index = [&](const std::string& map, const std::string& words) {
    std::ofstream(folder_.path() / "model.safetensors.index.json") << "{\"weight_map\":{" + map + "}}";
    try {
      const SafetensorsFolder folder(folder_.path());
      ADD_FAILURE() << "accepted, instead of: " << words;
    } catch (const DataError& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  write("{" + entry("x", "F32", "[1]", "[0,4]") + "}", 4);
  fs::rename(path(), folder_.path() / "one.safetensors");
  refuses_index("\"x\":\"../one.safetensors\"", "no plain name");
  refuses_index("\"x\":\"one.bin\"", "no plain name");
  refuses_index("\"x\":7", "no plain name");
  refuses_index("\"x\":\"one.safetensors\",\"y\":\"one.safetensors\"", "tensor y is not in one.safetensors");
  refuses_index("", "weight_map that names tensors");
  write("{}", 0);
  refuses_index("\"x\":\"one.safetensors\"", "has both");
}

}  // namespace
}  // namespace red::convert

// CRC-32C against the values that RFC 3720, appendix B.4, gives, and the customary check value.
#include "base/crc32c.hpp"

#include <gtest/gtest.h>

#include <string>

namespace red {
namespace {

TEST(Crc32cTest, IsThatOfRfc3720) {
  std::string rising, falling;
  for (int i = 0; i < 32; ++i) {
    rising.push_back(static_cast<char>(i));
    falling.push_back(static_cast<char>(31 - i));
  }
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
  EXPECT_EQ(crc32c(rising), 0x46DD794EU);
  EXPECT_EQ(crc32c(falling), 0x113FDB5CU);
}

TEST(Crc32cTest, HasItsCheckValue) {
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(Crc32cTest, OfBulkIsThatOfRecords) {
  std::string bytes;
  for (int i = 0; i < 50000; ++i) bytes.push_back(static_cast<char>(i * i + i / 7));
  for (const std::size_t begin : {0, 1, 3, 8}) {
    for (const std::size_t count : {0, 1, 7, 8, 9, 63, 64, 500, 12287, 12288, 12289, 24576, 49001}) {
      const std::string_view part = std::string_view(bytes).substr(begin, count);
      EXPECT_EQ(extend_crc32c(0, part.data(), part.size()), crc32c(part));
      EXPECT_EQ(detail::extend_crc32c_by_tables(0, part.data(), part.size()), crc32c(part));
    }
  }
}

TEST(Crc32cTest, GoesOnWhereItStopped) {
  const std::string bytes = "123456789 and what comes behind";
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    const uint32_t first = extend_crc32c(0, bytes.data(), cut);
    EXPECT_EQ(extend_crc32c(first, bytes.data() + cut, bytes.size() - cut), crc32c(bytes));
    EXPECT_EQ(detail::extend_crc32c_by_tables(first, bytes.data() + cut, bytes.size() - cut), crc32c(bytes));
  }
}

}  // namespace
}  // namespace red

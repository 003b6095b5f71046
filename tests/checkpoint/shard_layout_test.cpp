// Rectangles: exact tilings, holes, overlaps, names, and arithmetic at the edge of 63 bits.
#include "checkpoint/shard_layout.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.hpp"
#include "base/philox.hpp"

namespace red::checkpoint {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

std::string fault_text(const Rectangle& area, const std::vector<Tile>& tiles) {
  const auto fault = find_tiling_fault(area, tiles);
  return fault ? to_string(*fault, false) : "none";
}

TEST(Tiling, ByHand) {
  const Rectangle area{0, 4, 0, 6};
  const Tile top_left{{0, 2, 0, 3}, 0}, top_right{{0, 2, 3, 3}, 1}, bottom{{2, 2, 0, 6}, 2};
  EXPECT_EQ(fault_text(area, {top_left, top_right, bottom}), "none");
  EXPECT_EQ(fault_text(area, {bottom, top_right, top_left}), "none");
  EXPECT_EQ(fault_text(area, {top_left, bottom}),
            "no writer holds rows [0, 1) x columns [3, 4) (the first gap)");
  EXPECT_EQ(fault_text(area, {top_left, top_right}),
            "no writer holds rows [2, 3) x columns [0, 1) (the first gap)");
  EXPECT_EQ(fault_text(area, {}), "no writer holds rows [0, 1) x columns [0, 1) (the first gap)");
  EXPECT_EQ(fault_text(area, {top_left, top_right, bottom, {{1, 2, 2, 1}, 3}}),
            "writers 0 and 3 both give rows [1, 2) x columns [2, 3)");
  EXPECT_EQ(fault_text(area, {bottom, bottom}), "writer 2 gives rows [2, 4) x columns [0, 6) twice");
  EXPECT_EQ(fault_text(area, {{{2, 3, 0, 6}, 1}}),
            "writer 1 gives rows [2, 5) x columns [0, 6), which lies outside");
}

/// Cuts an area in two again and again.
std::vector<Tile> random_tiling(const Rectangle& area, uint64_t seed, int num_cuts) {
  std::vector<Tile> tiles = {{area, 0}};
  for (int cut = 0; cut < num_cuts; ++cut) {
    const PhiloxBlock bits = philox(seed, static_cast<uint64_t>(cut));
    Rectangle& first = tiles[bits[0] % tiles.size()].region;
    Rectangle second = first;
    if (bits[1] % 2 == 0 && first.num_rows > 1) {
      first.num_rows = 1 + bits[2] % (first.num_rows - 1);
      second.row_begin = first.row_end();
      second.num_rows -= first.num_rows;
    } else if (first.num_cols > 1) {
      first.num_cols = 1 + bits[2] % (first.num_cols - 1);
      second.col_begin = first.col_end();
      second.num_cols -= first.num_cols;
    } else {
      continue;
    }
    tiles.push_back({second, static_cast<int>(tiles.size())});
  }
  return tiles;
}

/// What find_tiling_fault must say, cell by cell.
std::string slow_verdict(const Rectangle& area, const std::vector<Tile>& tiles) {
  bool hole = false;
  for (int64_t row = area.row_begin; row < area.row_end(); ++row) {
    for (int64_t col = area.col_begin; col < area.col_end(); ++col) {
      int holders = 0;
      for (const Tile& tile : tiles) holders += !intersection({row, 1, col, 1}, tile.region).empty();
      if (holders > 1) return "overlap";
      hole = hole || holders == 0;
    }
  }
  return hole ? "hole" : "none";
}

std::string fast_verdict(const Rectangle& area, const std::vector<Tile>& tiles) {
  const auto fault = find_tiling_fault(area, tiles);
  if (!fault) return "none";
  if (fault->kind == TilingFault::Kind::hole) {
    for (const Tile& tile : tiles) EXPECT_TRUE(intersection(fault->where, tile.region).empty());
    EXPECT_EQ(intersection(area, fault->where), fault->where);
  }
  return fault->kind == TilingFault::Kind::hole ? "hole" : "overlap";
}

TEST(Tiling, RandomOnesAgainstCellByCell) {
  const Rectangle area{3, 17, 5, 23};
  for (uint64_t seed = 0; seed < 100; ++seed) {
    std::vector<Tile> tiles = random_tiling(area, seed, 20);
    EXPECT_EQ(fast_verdict(area, tiles), "none") << seed;
    const PhiloxBlock bits = philox(seed, 1000);
    Rectangle& changed = tiles[bits[0] % tiles.size()].region;
    if (bits[1] % 3 == 0) {
      tiles.erase(tiles.begin() + static_cast<int64_t>(bits[0] % tiles.size()));
    } else if (bits[1] % 3 == 1) {
      changed = {area.row_begin, changed.row_end() - area.row_begin, changed.col_begin, changed.num_cols};
    } else {
      changed.num_cols = 1;
    }
    EXPECT_EQ(fast_verdict(area, tiles), slow_verdict(area, tiles)) << seed;
  }
}

TEST(Shard, ImpossibleOnesAreLogicErrors) {
  float memory[4] = {};
  const LogicalTensor matrix{"parameters/a", 4, 3, DType::fp32}, vector{"parameters/b", 4, 0, DType::fp32};
  EXPECT_NO_THROW(check_shard({matrix, 1, 2, 1, 2, memory, 2}));
  EXPECT_NO_THROW(check_shard({vector, 1, 3, 0, 1, memory, 1}));
  EXPECT_NO_THROW(check_shard({matrix, 4, 0, 0, 3, nullptr, 0}));  // a rank without rows
  EXPECT_THROW(check_shard({matrix, 1, 4, 0, 3, memory, 3}), LogicError);
  EXPECT_THROW(check_shard({matrix, -1, 2, 0, 3, memory, 3}), LogicError);
  EXPECT_THROW(check_shard({matrix, 1, kHuge, 0, 3, memory, 3}), LogicError);
  EXPECT_THROW(check_shard({matrix, 0, 4, 2, 2, memory, 3}), LogicError);
  EXPECT_THROW(check_shard({vector, 0, 4, 0, 2, memory, 2}), LogicError);
  EXPECT_THROW(check_shard({matrix, 0, 4, 0, 3, memory, 2}), LogicError);
  EXPECT_THROW(check_shard({matrix, 0, 4, 0, 3, nullptr, 3}), LogicError);
  EXPECT_THROW(check_shard({{"parameters/a", 0, 3, DType::fp32}, 0, 0, 0, 3, memory, 3}), LogicError);
  EXPECT_THROW(check_shard({{"parameters/a", kHuge / 2, 3, DType::fp32}, 0, 1, 0, 3, memory, 3}), LogicError);
  EXPECT_THROW(check_shard({{"../a", 4, 3, DType::fp32}, 0, 4, 0, 3, memory, 3}), LogicError);
}

TEST(Names, OnlyPlainPathsPass) {
  for (const char* good : {"a", "parameters/decoder.layers.0.ffn.up.weight", "optimizer/v_row/x-1", "..."})
    EXPECT_TRUE(is_plain_path(good)) << good;
  for (const char* bad :
       {"", "/a", "a/", "a//b", "..", "a/../b", ".", "a b", "a%b", "a[0]", "\xc3\xa4", "a\n"})
    EXPECT_FALSE(is_plain_path(bad)) << bad;
}

TEST(Names, SayWhatAFileHolds) {
  EXPECT_EQ(shard_file_name(12), "shard-00012.h5");
  EXPECT_EQ(shard_file_name(123456), "shard-123456.h5");
  EXPECT_EQ(tile_name({"parameters/x", 10, 8, DType::fp32}, {0, 10, 4, 4}), "parameters/x[0:10,4:8]");
  EXPECT_EQ(tile_name({"parameters/gain", 96, 0, DType::fp32}, {32, 64, 0, 1}), "parameters/gain[32:96]");
}

TEST(Bytes, OverflowIsNoticed) {
  int64_t num_bytes = 0;
  EXPECT_TRUE(count_bytes(int64_t{1} << 30, int64_t{1} << 30, DType::fp32, num_bytes));
  EXPECT_EQ(num_bytes, int64_t{1} << 62);
  EXPECT_FALSE(count_bytes(int64_t{1} << 31, int64_t{1} << 30, DType::fp32, num_bytes));
  EXPECT_FALSE(count_bytes(int64_t{1} << 40, int64_t{1} << 40, DType::uint8, num_bytes));
  EXPECT_FALSE(count_bytes(-1, 1, DType::uint8, num_bytes));
}

}  // namespace
}  // namespace red::checkpoint

// Rectangles of logical tensors: names, bounds, intersections, and whether a set of them tiles a tensor
// exactly. Writer and reader agree on files through this header alone. All arithmetic on numbers that come
// from files is checked for overflow.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/shard.hpp"

namespace red::checkpoint {

/// Rows [row_begin, row_begin + num_rows) x columns [col_begin, col_begin + num_cols), global coordinates.
struct Rectangle {
  int64_t row_begin = 0, num_rows = 0;
  int64_t col_begin = 0, num_cols = 0;

  int64_t row_end() const { return row_begin + num_rows; }
  int64_t col_end() const { return col_begin + num_cols; }
  int64_t size() const { return num_rows * num_cols; }
  bool empty() const { return num_rows <= 0 || num_cols <= 0; }
  bool operator==(const Rectangle&) const = default;
};

/// One rectangle of a tensor, and which writer's file holds it.
struct Tile {
  Rectangle region;
  int writer = 0;
  uint32_t crc32c = 0;  ///< of its bytes, row-major without gaps
};

struct TiledTensor {
  LogicalTensor tensor;
  std::vector<Tile> tiles;
};

/// The whole tensor; a vector is one column.
Rectangle whole(const LogicalTensor& tensor);
Rectangle region_of(const Shard& shard);
/// Empty when they do not meet.
Rectangle intersection(const Rectangle& a, const Rectangle& b);

/// "rows [0, 8) x columns [4, 6)"; "[0, 8)" for a vector.
std::string to_string(const Rectangle& region, bool is_vector);
/// "(32768, 1024) fp32"
std::string shape_text(const LogicalTensor& tensor);

/// Where tiles fail to cover an area exactly once.
struct TilingFault {
  enum class Kind { hole, overlap, outside } kind = Kind::hole;
  Rectangle where;            ///< hole: its first cell; overlap: what both hold; outside: the tile
  int first = 0, second = 0;  ///< overlap, outside: writers
};
/// Nothing: the tiles cover `area` exactly. O(n log n) when they do. No tile may be empty.
std::optional<TilingFault> find_tiling_fault(const Rectangle& area, std::span<const Tile> tiles);
std::string to_string(const TilingFault& fault, bool is_vector);

/// Throws LogicError when the path, shape or region of a shard is impossible.
void check_shard(const Shard& shard);
/// Path components of letters, digits, '_', '-' and '.', none of them "." or "..": nothing that HDF5 or a
/// file system reads as more than a name.
bool is_plain_path(const std::string& path);

/// Bytes of a region; false when that or the extents overflow 63 bits or are negative.
bool count_bytes(int64_t num_rows, int64_t num_cols, DType dtype, int64_t& num_bytes);

std::string shard_file_name(int writer);  ///< "shard-00012.h5"
/// Name of a tile's dataset inside its shard file: "parameters/x[0:10,4:8]", "parameters/gain[0:96]".
std::string tile_name(const LogicalTensor& tensor, const Rectangle& region);

}  // namespace red::checkpoint

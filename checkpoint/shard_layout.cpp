#include "checkpoint/shard_layout.hpp"

#include <algorithm>
#include <map>

#include "base/error.hpp"

namespace red::checkpoint {
namespace {

bool overflows(int64_t begin, int64_t count, int64_t limit) {
  return begin < 0 || count < 0 || begin > limit || count > limit - begin;
}

/// The first pair of tiles that share a cell: sweeps down the rows, holding the tiles of the current row in
/// the order of their columns; a new tile can only meet its neighbours there.
std::optional<TilingFault> find_overlap(std::span<const Tile> tiles) {
  struct Event {
    int64_t row;
    bool begins;
    std::size_t tile;
  };
  std::vector<Event> events;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    events.push_back({tiles[i].region.row_begin, true, i});
    events.push_back({tiles[i].region.row_end(), false, i});
  }
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return a.row != b.row ? a.row < b.row : a.begins < b.begins;  // ends first: touching is not overlapping
  });
  std::map<int64_t, std::size_t> active;  // column where a tile begins -> tile
  for (const Event& event : events) {
    const Rectangle& region = tiles[event.tile].region;
    if (!event.begins) {
      active.erase(region.col_begin);
      continue;
    }
    const auto next = active.lower_bound(region.col_begin);
    for (const auto& neighbour : {next, next == active.begin() ? active.end() : std::prev(next)}) {
      if (neighbour == active.end()) continue;
      const Tile& other = tiles[neighbour->second];
      const Rectangle both = intersection(region, other.region);
      if (!both.empty())
        return TilingFault{TilingFault::Kind::overlap, both, std::min(other.writer, tiles[event.tile].writer),
                           std::max(other.writer, tiles[event.tile].writer)};
    }
    active[region.col_begin] = event.tile;
  }
  return std::nullopt;
}

/// The first uncovered cell in row-major order. Its row is the area's first or one where a tile ends.
Rectangle find_hole(const Rectangle& area, std::span<const Tile> tiles) {
  std::vector<int64_t> rows = {area.row_begin};
  for (const Tile& tile : tiles) rows.push_back(tile.region.row_end());
  std::sort(rows.begin(), rows.end());
  std::vector<Rectangle> here;
  for (const int64_t row : rows) {
    if (row >= area.row_end()) break;
    here.clear();
    for (const Tile& tile : tiles) {
      if (tile.region.row_begin <= row && row < tile.region.row_end()) here.push_back(tile.region);
    }
    std::sort(here.begin(), here.end(),
              [](const Rectangle& a, const Rectangle& b) { return a.col_begin < b.col_begin; });
    int64_t col = area.col_begin;
    for (const Rectangle& region : here) {
      if (region.col_begin > col) break;
      col = region.col_end();
    }
    if (col < area.col_end()) return {row, 1, col, 1};
  }
  throw LogicError("tiles of too small a total size leave no hole");
}

}  // namespace

Rectangle whole(const LogicalTensor& tensor) {
  return {0, tensor.rows, 0, tensor.cols == 0 ? 1 : tensor.cols};
}

Rectangle region_of(const Shard& shard) {
  return {shard.row_begin, shard.num_rows, shard.col_begin, shard.num_cols};
}

Rectangle intersection(const Rectangle& a, const Rectangle& b) {
  const int64_t row = std::max(a.row_begin, b.row_begin);
  const int64_t col = std::max(a.col_begin, b.col_begin);
  return {row, std::max<int64_t>(0, std::min(a.row_end(), b.row_end()) - row), col,
          std::max<int64_t>(0, std::min(a.col_end(), b.col_end()) - col)};
}

std::string to_string(const Rectangle& region, bool is_vector) {
  if (is_vector) return fmt::format("[{}, {})", region.row_begin, region.row_end());
  return fmt::format("rows [{}, {}) x columns [{}, {})", region.row_begin, region.row_end(), region.col_begin,
                     region.col_end());
}

std::string shape_text(const LogicalTensor& tensor) {
  if (tensor.cols == 0) return fmt::format("({}) {}", tensor.rows, name_of(tensor.dtype));
  return fmt::format("({}, {}) {}", tensor.rows, tensor.cols, name_of(tensor.dtype));
}

std::optional<TilingFault> find_tiling_fault(const Rectangle& area, std::span<const Tile> tiles) {
  int64_t covered = 0;
  for (const Tile& tile : tiles) {
    if (!(intersection(area, tile.region) == tile.region))
      return TilingFault{TilingFault::Kind::outside, tile.region, tile.writer, tile.writer};
  }
  if (auto overlap = find_overlap(tiles)) return overlap;
  for (const Tile& tile : tiles) covered += tile.region.size();  // disjoint and inside: at most area.size()
  if (covered == area.size()) return std::nullopt;
  return TilingFault{TilingFault::Kind::hole, find_hole(area, tiles)};
}

std::string to_string(const TilingFault& fault, bool is_vector) {
  std::string where = to_string(fault.where, is_vector);
  switch (fault.kind) {
    case TilingFault::Kind::hole:
      return "no writer holds " + where + " (the first gap)";
    case TilingFault::Kind::overlap:
      return fault.first == fault.second
                 ? fmt::format("writer {} gives {} twice", fault.first, where)
                 : fmt::format("writers {} and {} both give {}", fault.first, fault.second, where);
    case TilingFault::Kind::outside:
      return fmt::format("writer {} gives {}, which lies outside", fault.first, where);
  }
  return where;
}

void check_shard(const Shard& shard) {
  const LogicalTensor& tensor = shard.tensor;
  if (!is_plain_path(tensor.path))
    throw LogicError("'{}' cannot be a tensor's path: letters, digits, '_', '-', '.', between single '/'",
                     tensor.path);
  int64_t num_bytes = 0;
  const Rectangle area = whole(tensor);
  if (tensor.rows <= 0 || tensor.cols < 0 ||
      !count_bytes(area.num_rows, area.num_cols, tensor.dtype, num_bytes))
    throw LogicError("tensor '{}': impossible shape {}", tensor.path, shape_text(tensor));
  if (overflows(shard.row_begin, shard.num_rows, area.num_rows) ||
      overflows(shard.col_begin, shard.num_cols, area.num_cols))
    throw LogicError("tensor '{}' {}: region of {} rows from {}, {} columns from {} lies outside",
                     tensor.path, shape_text(tensor), shard.num_rows, shard.row_begin, shard.num_cols,
                     shard.col_begin);
  if (region_of(shard).empty()) return;
  if (shard.data == nullptr) throw LogicError("tensor '{}': a region without memory", tensor.path);
  if (shard.num_rows > 1 && shard.row_stride < shard.num_cols)
    throw LogicError("tensor '{}': row stride {} is less than {} columns", tensor.path, shard.row_stride,
                     shard.num_cols);
}

bool is_plain_path(const std::string& path) {
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = std::min(path.find('/', begin), path.size());
    const std::string part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    for (const char c : part) {
      const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                         c == '_' || c == '-' || c == '.';
      if (!plain) return false;
    }
    if (end == path.size()) return true;
    begin = end + 1;
  }
}

bool count_bytes(int64_t num_rows, int64_t num_cols, DType dtype, int64_t& num_bytes) {
  return num_rows >= 0 && num_cols >= 0 && !__builtin_mul_overflow(num_rows, num_cols, &num_bytes) &&
         !__builtin_mul_overflow(num_bytes, static_cast<int64_t>(size_of(dtype)), &num_bytes);
}

std::string shard_file_name(int writer) {
  return fmt::format("shard-{:05}.h5", writer);
}

std::string tile_name(const LogicalTensor& tensor, const Rectangle& region) {
  if (tensor.cols == 0) return fmt::format("{}[{}:{}]", tensor.path, region.row_begin, region.row_end());
  return fmt::format("{}[{}:{},{}:{}]", tensor.path, region.row_begin, region.row_end(), region.col_begin,
                     region.col_end());
}

}  // namespace red::checkpoint

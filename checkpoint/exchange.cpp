#include "checkpoint/exchange.hpp"

#include <unistd.h>

#include <cstring>
#include <map>
#include <set>
#include <span>
#include <sstream>
#include <string>

#include "base/check.hpp"
#include "base/error.hpp"

namespace red::checkpoint {
namespace {

constexpr int kTag = 2600;  ///< of messages with tiles
constexpr std::size_t kMaxFailureBytes = 64 << 10;

Tensor bytes_tensor(void* data, std::size_t num_bytes) {
  return make_tensor(static_cast<uint8_t*>(data), 1, static_cast<int64_t>(num_bytes));
}

std::string host_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof(name) - 1) != 0) return "an unknown host";
  return name;
}

/// Plain values one after another.
class ByteWriter {
 public:
  template <class T>
  void put(T value) {
    const auto* bytes = reinterpret_cast<const char*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof(T));
  }
  void put_text(const std::string& text) {
    put<uint64_t>(text.size());
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  std::vector<char>& bytes() { return bytes_; }

 private:
  std::vector<char> bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(const std::vector<char>& bytes) : bytes_(bytes) {}
  bool at_end() const { return next_ == bytes_.size(); }
  template <class T>
  T get() {
    T value;
    RED_CHECK(sizeof(T) <= bytes_.size() - next_, "message of {} bytes ends early", bytes_.size());
    std::memcpy(&value, bytes_.data() + next_, sizeof(T));
    next_ += sizeof(T);
    return value;
  }
  std::string get_text() {
    const auto length = get<uint64_t>();
    RED_CHECK(length <= bytes_.size() - next_, "message of {} bytes ends early", bytes_.size());
    std::string text(bytes_.data() + next_, length);
    next_ += length;
    return text;
  }

 private:
  const std::vector<char>& bytes_;
  std::size_t next_ = 0;
};

/// Everyone's bytes by rank, on rank 0; empty elsewhere.
std::vector<std::vector<char>> gather_bytes(parallel::Communicator& world, std::vector<char>& mine) {
  const std::vector<uint64_t> sizes = gather_numbers(world, mine.size());
  std::vector<std::vector<char>> all;
  if (world.rank() != 0) {
    if (mine.empty()) return all;
    parallel::Request request = world.send(bytes_tensor(mine.data(), mine.size()), 0, kTag);
    world.wait(request, "checkpoint: tiles to rank 0");
    return all;
  }
  all.resize(sizes.size());
  all[0] = mine;
  std::vector<parallel::Request> requests;
  for (int rank = 1; rank < world.size(); ++rank) {
    std::vector<char>& bytes = all[static_cast<std::size_t>(rank)];
    bytes.resize(sizes[static_cast<std::size_t>(rank)]);
    if (!bytes.empty())
      requests.push_back(world.receive(bytes_tensor(bytes.data(), bytes.size()), rank, kTag));
  }
  for (parallel::Request& request : requests) world.wait(request, "checkpoint: tiles of all ranks");
  return all;
}

std::vector<char> pack_tiles(const Metadata& metadata, std::span<const Shard> shards) {
  ByteWriter out;
  out.put(metadata.step);
  out.put(metadata.sample_cursor);
  for (const Shard& shard : shards) {
    check_shard(shard);
    if (region_of(shard).empty()) continue;
    out.put_text(shard.tensor.path);
    out.put(shard.tensor.rows);
    out.put(shard.tensor.cols);
    out.put(shard.tensor.dtype);
    out.put(region_of(shard));
  }
  return std::move(out.bytes());
}

/// Where rank `writer`'s tiles went, in its own order: a tensor's path and which of its tiles.
using NamedPlaces = std::vector<std::pair<std::string, std::size_t>>;

NamedPlaces unpack_tiles(const std::vector<char>& bytes, int writer, const Metadata& metadata,
                         std::map<std::string, TiledTensor>& tensors) {
  ByteReader in(bytes);
  const auto step = in.get<int64_t>();
  const auto cursor = in.get<uint64_t>();
  if (step != metadata.step || cursor != metadata.sample_cursor)
    throw LogicError("rank {} saves step {}, sample {}, but rank 0 saves step {}, sample {}", writer, step,
                     cursor, metadata.step, metadata.sample_cursor);
  NamedPlaces places;
  while (!in.at_end()) {
    LogicalTensor tensor;
    tensor.path = in.get_text();
    tensor.rows = in.get<int64_t>();
    tensor.cols = in.get<int64_t>();
    tensor.dtype = in.get<DType>();
    const auto region = in.get<Rectangle>();
    TiledTensor& tiled = tensors.try_emplace(tensor.path, TiledTensor{tensor, {}}).first->second;
    if (shape_text(tiled.tensor) != shape_text(tensor))
      throw LogicError("tensor '{}' is {} on rank {}, but {} on rank {}", tensor.path, shape_text(tensor),
                       writer, shape_text(tiled.tensor), tiled.tiles.front().writer);
    places.emplace_back(tensor.path, tiled.tiles.size());
    tiled.tiles.push_back({region, writer});
  }
  return places;
}

AllTiles assemble(const std::vector<std::vector<char>>& messages, const Metadata& metadata) {
  std::map<std::string, TiledTensor> tensors;
  std::vector<NamedPlaces> named;
  for (std::size_t rank = 0; rank < messages.size(); ++rank)
    named.push_back(unpack_tiles(messages[rank], static_cast<int>(rank), metadata, tensors));
  AllTiles all;
  std::map<std::string, std::size_t> by_path;
  for (auto& [path, tiled] : tensors) {
    if (const auto fault = find_tiling_fault(whole(tiled.tensor), tiled.tiles))
      throw LogicError("tensor '{}' {} cannot be saved: {}", path, shape_text(tiled.tensor),
                       to_string(*fault, tiled.tensor.cols == 0));
    by_path[path] = all.tensors.size();
    all.tensors.push_back(std::move(tiled));
  }
  for (const NamedPlaces& of_rank : named) {
    std::vector<AllTiles::Place>& places = all.places.emplace_back();
    for (const auto& [path, tile] : of_rank) places.push_back({by_path.at(path), tile});
  }
  return all;
}

}  // namespace

std::vector<uint64_t> gather_numbers(parallel::Communicator& world, uint64_t mine) {
  std::vector<uint64_t> all(static_cast<std::size_t>(world.size()));
  Tensor receive = bytes_tensor(all.data(), all.size() * sizeof(uint64_t));
  receive.rows = world.size();
  receive.cols = receive.row_stride = sizeof(uint64_t);
  parallel::Request request = world.all_gather(receive, bytes_tensor(&mine, sizeof(mine)));
  world.wait(request, "checkpoint: numbers of all ranks");
  return all;
}

void run_agreed(parallel::Communicator& world, std::string_view what, const std::function<void()>& work) {
  std::string text;
  ExitCode code = ExitCode::ok;
  try {
    work();
  } catch (const CommunicationError&) {
    throw;
  } catch (const LogicError& error) {
    code = ExitCode::internal;
    text = error.what();
  } catch (const std::exception& error) {
    code = ExitCode::io;
    text = error.what();
  }
  if (code != ExitCode::ok) {
    text = fmt::format("{}: rank {} on {}: {}", what, world.rank(), host_name(), text);
    if (text.size() > kMaxFailureBytes) text.resize(kMaxFailureBytes);
  }
  // One number says all that others must know before the text: exit code and length.
  const std::vector<uint64_t> verdicts =
      gather_numbers(world, text.size() << 8 | static_cast<uint64_t>(static_cast<int>(code)));
  int first = -1, num_failed = 0;
  for (int rank = world.size() - 1; rank >= 0; --rank) {
    if (verdicts[static_cast<std::size_t>(rank)] == 0) continue;
    first = rank;
    ++num_failed;
  }
  if (first < 0) return;
  const uint64_t verdict = verdicts[static_cast<std::size_t>(first)];
  text.resize(verdict >> 8);
  parallel::Request request = world.broadcast(bytes_tensor(text.data(), text.size()), first);
  world.wait(request, "checkpoint: why a rank failed");
  if (num_failed > 1) text += fmt::format(" (and {} more of {} ranks failed)", num_failed - 1, world.size());
  if (static_cast<ExitCode>(verdict & 0xFF) == ExitCode::internal) throw LogicError("{}", text);
  throw IoError("{}", text);
}

std::string text_of_first_rank(parallel::Communicator& world, std::string text) {
  uint64_t length = text.size();
  parallel::Request request = world.broadcast(bytes_tensor(&length, sizeof(length)), 0);
  world.wait(request, "checkpoint: length of a text");
  text.resize(length);
  if (length == 0) return text;
  request = world.broadcast(bytes_tensor(text.data(), text.size()), 0);
  world.wait(request, "checkpoint: a text");
  return text;
}

std::string join_lines(parallel::Communicator& world, const std::string& mine) {
  std::vector<char> bytes(mine.begin(), mine.end());
  std::string joined;
  std::set<std::string> known;
  for (const std::vector<char>& of_rank : gather_bytes(world, bytes)) {
    std::istringstream lines(std::string(of_rank.begin(), of_rank.end()));
    for (std::string line; std::getline(lines, line);) {
      if (known.insert(line).second) joined += line + "\n";
    }
  }
  return text_of_first_rank(world, std::move(joined));
}

AllTiles gather_tiles(parallel::Communicator& world, const Metadata& metadata,
                      std::span<const Shard> local_shards) {
  std::vector<char> mine;
  run_agreed(world, "checkpoint: tiles of this rank", [&] { mine = pack_tiles(metadata, local_shards); });
  const std::vector<std::vector<char>> all = gather_bytes(world, mine);
  AllTiles tiles;
  run_agreed(world, "checkpoint: tiles of all ranks", [&] {
    if (world.rank() == 0) tiles = assemble(all, metadata);
  });
  return tiles;
}

std::vector<ShardRecord> gather_records(parallel::Communicator& world, const ShardRecord& mine) {
  ByteWriter out;
  out.put(mine.num_bytes);
  out.put(mine.structure_crc32c);
  for (const uint32_t crc : mine.tile_crc32c) out.put(crc);
  std::vector<ShardRecord> records;
  for (const std::vector<char>& bytes : gather_bytes(world, out.bytes())) {
    ByteReader in(bytes);
    ShardRecord& record = records.emplace_back();
    record.num_bytes = in.get<uint64_t>();
    record.structure_crc32c = in.get<uint32_t>();
    while (!in.at_end()) record.tile_crc32c.push_back(in.get<uint32_t>());
  }
  return records;
}

void set_checksums(AllTiles& tiles, std::span<const ShardRecord> records) {
  RED_CHECK(tiles.places.size() == records.size(), "{} ranks named tiles, {} wrote", tiles.places.size(),
            records.size());
  for (std::size_t rank = 0; rank < records.size(); ++rank) {
    const auto& places = tiles.places[rank];
    const auto& checksums = records[rank].tile_crc32c;
    RED_CHECK(places.size() == checksums.size(), "rank {} named {} tiles and wrote {}", rank, places.size(),
              checksums.size());
    for (std::size_t i = 0; i < places.size(); ++i)
      tiles.tensors[places[i].tensor].tiles[places[i].tile].crc32c = checksums[i];
  }
}

}  // namespace red::checkpoint

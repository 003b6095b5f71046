// Reads TensorBoard's event files, written a second time and from the format alone: frames and their CRCs,
// and of an Event what the engine writes. Throws std::runtime_error at the first thing that is not as it
// should be.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace red::test {

struct ReadEvent {
  double wall_time = 0.0;
  int64_t step = 0;
  std::string file_version;
  int64_t session_status = 0;  ///< 1: START
  std::map<std::string, float> values;
};

namespace event_reader {

/// Bit by bit.
inline uint32_t crc32c(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFFU;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78U : crc >> 1;
  }
  return ~crc;
}

inline uint32_t masked(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8U;
}

inline std::string_view take(std::string_view& rest, std::size_t count) {
  if (count > rest.size()) throw std::runtime_error("the record ends early");
  const std::string_view taken = rest.substr(0, count);
  rest.remove_prefix(count);
  return taken;
}

template <class T>
T number(std::string_view& rest) {
  T value;
  std::memcpy(&value, take(rest, sizeof(T)).data(), sizeof(T));
  return value;
}

inline uint64_t varint(std::string_view& rest) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(take(rest, 1).front());
    value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

inline void expect_wire(uint64_t key, uint64_t wire) {
  if ((key & 7) != wire) throw std::runtime_error("field " + std::to_string(key >> 3) + " has another type");
}

inline std::string_view message(uint64_t key, std::string_view& rest) {
  expect_wire(key, 2);
  return take(rest, varint(rest));
}

inline void read_value(std::string_view rest, ReadEvent& event) {
  std::string tag;
  float value = 0.0F;
  while (!rest.empty()) {
    const uint64_t key = varint(rest);
    if (key >> 3 == 1) {
      tag = message(key, rest);
    } else if (key >> 3 == 2) {
      expect_wire(key, 5);
      value = number<float>(rest);
    } else {
      throw std::runtime_error("a value with an unknown field");
    }
  }
  if (!event.values.emplace(tag, value).second) throw std::runtime_error("twice in one event: " + tag);
}

inline ReadEvent read_event(std::string_view rest) {
  ReadEvent event;
  while (!rest.empty()) {
    const uint64_t key = varint(rest);
    switch (key >> 3) {
      case 1:
        expect_wire(key, 1);
        event.wall_time = number<double>(rest);
        break;
      case 2:
        expect_wire(key, 0);
        event.step = static_cast<int64_t>(varint(rest));
        break;
      case 3:
        event.file_version = message(key, rest);
        break;
      case 5: {
        std::string_view summary = message(key, rest);
        while (!summary.empty()) read_value(message(varint(summary), summary), event);
        break;
      }
      case 7: {
        std::string_view session = message(key, rest);
        if (varint(session) != 8) throw std::runtime_error("a session log without status");
        event.session_status = static_cast<int64_t>(varint(session));
        break;
      }
      default:
        throw std::runtime_error("an event with an unknown field");
    }
  }
  return event;
}

}  // namespace event_reader

/// Each record's bytes.
inline std::vector<std::string> read_event_records(std::string_view file) {
  using namespace event_reader;
  std::vector<std::string> records;
  while (!file.empty()) {
    std::string_view head = take(file, 8);
    const uint32_t head_crc = masked(head);
    const auto length = number<uint64_t>(head);
    if (number<uint32_t>(file) != head_crc) throw std::runtime_error("CRC of a length");
    const std::string_view bytes = take(file, length);
    if (number<uint32_t>(file) != masked(bytes)) throw std::runtime_error("CRC of a record");
    records.emplace_back(bytes);
  }
  return records;
}

inline std::vector<ReadEvent> read_event_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + path.string());
  const std::string bytes{std::istreambuf_iterator<char>(in), {}};
  std::vector<ReadEvent> events;
  for (const std::string& record : read_event_records(bytes))
    events.push_back(event_reader::read_event(record));
  return events;
}

/// Event files of a run, in the order in which they are read.
inline std::vector<std::filesystem::path> event_files(const std::filesystem::path& run_dir) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(run_dir)) {
    if (entry.path().filename().string().find("tfevents") != std::string::npos) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// Curves as TensorBoard shows them: a START forgets the steps that it calls off.
inline std::map<std::string, std::vector<std::pair<int64_t, float>>> curves_of(
    const std::filesystem::path& run_dir) {
  std::map<std::string, std::vector<std::pair<int64_t, float>>> curves;
  for (const std::filesystem::path& file : event_files(run_dir)) {
    for (const ReadEvent& event : read_event_file(file)) {
      for (auto& [tag, points] : curves) {
        if (event.session_status == 1)
          std::erase_if(points, [&](const auto& point) { return point.first >= event.step; });
      }
      for (const auto& [tag, value] : event.values) curves[tag].emplace_back(event.step, value);
    }
  }
  return curves;
}

}  // namespace red::test

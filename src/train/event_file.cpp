#include "train/event_file.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>

#include "base/crc32c.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

template <class T>
void append_little_endian(std::string& out, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) out.push_back(static_cast<char>((value >> (8 * i)) & 0xFF));
}

/// Protocol buffers' wire format: a field is a key (number and wire type) and its value.
class Message {
 public:
  Message& integer(uint32_t field, int64_t value) {
    key(field, 0);
    varint(static_cast<uint64_t>(value));
    return *this;
  }
  Message& fp64(uint32_t field, double value) {
    key(field, 1);
    append_little_endian(bytes_, std::bit_cast<uint64_t>(value));
    return *this;
  }
  Message& fp32(uint32_t field, float value) {
    key(field, 5);
    append_little_endian(bytes_, std::bit_cast<uint32_t>(value));
    return *this;
  }
  /// A text or a message.
  Message& bytes(uint32_t field, std::string_view value) {
    key(field, 2);
    varint(value.size());
    bytes_.append(value);
    return *this;
  }
  const std::string& encoded() const { return bytes_; }

 private:
  void key(uint32_t field, uint32_t wire_type) { varint(field << 3 | wire_type); }
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

Message event(double wall_time) {
  return Message().fp64(1, wall_time);
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// Files are read in the order of their names, so a clock that was put back must not put this one first.
int64_t seconds_behind_others(const fs::path& folder) {
  auto seconds = static_cast<int64_t>(now());
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t other = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), other);
    seconds = std::max(seconds, other + 1);
  }
  if (error) throw IoError("{}: cannot read the folder: {}", folder.string(), error.message());
  return seconds;
}

fs::path new_path(const fs::path& folder) {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host = {"host"};
  return folder /
         fmt::format("{}{:010}.{}.{}", kPrefix, seconds_behind_others(folder), host.data(), ::getpid());
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8U;
}

std::string event_record(std::string_view event) {
  std::string record;
  append_little_endian(record, uint64_t{event.size()});
  append_little_endian(record, masked_crc32c(record));
  record.append(event);
  append_little_endian(record, masked_crc32c(event));
  return record;
}

std::string version_event(double wall_time) {
  return event(wall_time).bytes(3, "brain.Event:2").encoded();
}

std::string restart_event(double wall_time, int64_t step) {
  constexpr int64_t start = 1;
  return event(wall_time).integer(2, step).bytes(7, Message().integer(1, start).encoded()).encoded();
}

std::string scalar_event(double wall_time, int64_t step, std::span<const ScalarPoint> points) {
  Message summary;
  for (const auto& [tag, value] : points) summary.bytes(1, Message().bytes(1, tag).fp32(2, value).encoded());
  return event(wall_time).integer(2, step).bytes(5, summary.encoded()).encoded();
}

std::vector<ScalarPoint> scalar_points(const StepMetrics& m) {
  std::vector<ScalarPoint> points;
  const auto add = [&](std::string tag, double value) {
    points.emplace_back(std::move(tag), static_cast<float>(value));
  };
  visit_scalars(m, [&](const char* group, const char* name, const auto& value) {
    if constexpr (std::is_arithmetic_v<std::remove_cvref_t<decltype(value)>>) {
      add(fmt::format("{}/{}", group, name), static_cast<double>(value));
    } else if (value) {
      add(fmt::format("{}/{}", group, name), *value);
    }
  });
  for (std::size_t i = 0; i < m.phase_s.size(); ++i)
    add(fmt::format("phase_s/{}", kPhaseNames[i]), m.phase_s[i]);
  for (const ValidationLoss& v : m.validation) {
    add(fmt::format("validation/{}/loss", v.source), v.loss);
    add(fmt::format("validation/{}/second_half_loss", v.source), v.second_half_loss);
  }
  if (!m.validation.empty()) add("speed/validation_s", m.validation_s);
  return points;
}

EventFile::EventFile(const fs::path& folder, int64_t last_step)
    : file_(new_path(folder), RecordFile::Open::create) {
  file_.append(event_record(version_event(now())));
  file_.append(event_record(restart_event(now(), last_step + 1)));
}

void EventFile::write(const StepMetrics& metrics) {
  file_.append(event_record(scalar_event(metrics.wall_time, metrics.step, scalar_points(metrics))));
}

}  // namespace red::train

// What a fuzz target is: libFuzzer's entry point, which must get through any bytes. Errors of ours are
// answers; anything else (a crash, a hang, a sanitizer's report, another exception) is a find. Two programs
// call it: libFuzzer's own, which looks for new paths (tests/fuzz/run.sh), and replay.cpp, which needs
// nothing but the compiler at hand and runs with all other tests.
#pragma once

#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/check.hpp"

// NOLINTNEXTLINE(readability-identifier-naming): the name that libFuzzer looks for
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);

namespace red::test {

/// Bytes that decide something, taken one after another; zeros when they are used up.
class ByteSource {
 public:
  ByteSource(const uint8_t* data, std::size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto value = static_cast<uint8_t>(rest_.front());
    rest_.remove_prefix(1);
    return value;
  }
  /// 0 ... count - 1.
  int below(int count) { return byte() % count; }
  bool flag() { return (byte() & 1) != 0; }
  /// Mostly small, at times any of 64 bits.
  uint64_t number() {
    const uint8_t kind = byte();
    if (kind < 240) return kind % 12;
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return value;
  }
  /// Up to 15 bytes of any kind.
  std::string text() { return std::string(take(byte() % 16)); }
  std::string_view take(std::size_t count) {
    const std::string_view result = rest_.substr(0, count);
    rest_.remove_prefix(result.size());
    return result;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

/// One folder per process, for parsers that want files.
inline std::filesystem::path fuzz_folder() {
  static const struct Folder {
    std::filesystem::path path =
        std::filesystem::temp_directory_path() / ("redllm-fuzz-" + std::to_string(::getpid()));
    Folder() { std::filesystem::create_directories(path); }
    ~Folder() {
      std::error_code ignored;
      std::filesystem::remove_all(path, ignored);
    }
  } folder;
  return folder.path;
}

inline std::filesystem::path fuzz_file(const std::string& name, std::string_view bytes) {
  std::filesystem::path path = fuzz_folder() / name;
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

/// Runs f; wrong input may end in an error of ours that is not our own fault.
template <class F>
void survive(const F& f) {
  try {
    f();
  } catch (const LogicError&) {
    throw;
  } catch (const Error&) {  // NOLINT(bugprone-empty-catch): an answer
  }
}

}  // namespace red::test

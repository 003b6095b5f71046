// Runs a fuzz target without a fuzzer: over the seeds, and over many that a fixed generator damages. It finds
// no new paths, but what it finds it finds everywhere: any compiler, any sanitizer.
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <random>
#include <vector>

#include "fuzz/fuzz_target.hpp"

namespace {

using Bytes = std::vector<uint8_t>;
using Random = std::mt19937_64;

std::size_t below(Random& random, std::size_t count) {
  return static_cast<std::size_t>(random() % count);
}

/// One change: a bit, a byte, a number that is often wrong, a piece left out, doubled, or taken from
/// elsewhere.
void damage(Bytes& bytes, const Bytes& other, Random& random) {
  static constexpr uint64_t numbers[] = {
      0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, uint64_t{1} << 62, ~uint64_t{0}};
  if (bytes.empty()) bytes.push_back(0);
  const std::size_t at = below(random, bytes.size()),
                    length = 1 + below(random, std::min<std::size_t>(16, bytes.size() - at));
  const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at),
             end = begin + static_cast<std::ptrdiff_t>(length);
  switch (below(random, 7)) {
    case 0:
      bytes[at] ^= static_cast<uint8_t>(1U << below(random, 8));
      return;
    case 1:
      bytes[at] = static_cast<uint8_t>(random());
      return;
    case 2: {
      const uint64_t number = numbers[below(random, std::size(numbers))];
      for (std::size_t i = 0; i < length && i < 8; ++i)
        bytes[at + i] = static_cast<uint8_t>(number >> (8 * i));
      return;
    }
    case 3:
      bytes.erase(begin, end);
      return;
    case 4:
      bytes.resize(at);
      return;
    case 5: {
      const Bytes piece(begin, end);
      bytes.insert(begin, piece.begin(), piece.end());
      return;
    }
    default: {
      if (other.empty()) return;
      const std::size_t from = below(random, other.size());
      const std::size_t count = std::min<std::size_t>(length, other.size() - from);
      std::copy_n(other.begin() + static_cast<std::ptrdiff_t>(from), count, begin);
      return;
    }
  }
}

std::vector<Bytes> read_seeds(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<Bytes> seeds;
  for (const auto& path : paths) {
    std::ifstream in(path, std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return seeds;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: fuzz_NAME_replay SEEDS ROUNDS\n", stderr);
    return 2;
  }
  const std::vector<Bytes> seeds = read_seeds(argv[1]);
  if (seeds.empty()) {
    std::fprintf(stderr, "%s: no seeds\n", argv[1]);
    return 2;
  }
  Random random(17);
  for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  for (long round = std::strtol(argv[2], nullptr, 10); round > 0; --round) {
    Bytes bytes = seeds[below(random, seeds.size())];
    const Bytes& other = seeds[below(random, seeds.size())];
    for (std::size_t changes = 1 + below(random, 6); changes > 0; --changes) damage(bytes, other, random);
    try {
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    } catch (...) {
      std::ofstream("fuzz-find.bin", std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      std::fputs("what was read when it failed is in fuzz-find.bin\n", stderr);
      throw;
    }
  }
  return 0;
}

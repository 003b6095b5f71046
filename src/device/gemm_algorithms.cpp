#include "device/gemm_algorithms.hpp"

#include <fmt/ostream.h>
#include <unistd.h>

#include <cctype>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "base/log.hpp"

namespace red::detail {
namespace {

// Another meaning of a line needs another number here, and so does another choice of algorithms: in format 1
// some added parts of a sum up in bf16.
constexpr std::string_view kFormat = "redllm gemm algorithms, format 2";

constexpr std::size_t kWords = std::size(decltype(cublasLtMatmulAlgo_t::data){});

std::optional<std::pair<GemmKey, GemmAlgorithm>> parse_line(const std::string& line) {
  std::istringstream in(line);
  GemmKey key{};
  GemmAlgorithm algorithm;
  for (int64_t& number : key) in >> number;
  in >> algorithm.workspace_bytes >> std::hex;
  for (uint64_t& word : algorithm.algo.data) in >> word;
  std::string rest;
  if (!in || in >> rest) return std::nullopt;
  return std::pair{key, algorithm};
}

std::string line_of(const GemmKey& key, const GemmAlgorithm& algorithm) {
  return fmt::format("{} {} {:x}\n", fmt::join(key, " "), algorithm.workspace_bytes,
                     fmt::join(algorithm.algo.data, algorithm.algo.data + kWords, " "));
}

}  // namespace

GemmAlgorithms::GemmAlgorithms(std::filesystem::path file, std::string made_for)
    : file_(std::move(file)), made_for_(std::move(made_for)) {
  read();
}

const GemmAlgorithm* GemmAlgorithms::find(const GemmKey& key) const {
  const auto found = algorithms_.find(key);
  return found == algorithms_.end() ? nullptr : &found->second;
}

void GemmAlgorithms::add(const GemmKey& key, const GemmAlgorithm& algorithm) {
  read();
  algorithms_[key] = algorithm;
  if (file_.empty() || write() || warned_) return;
  warned_ = true;
  log::rank_warning(
      "{} cannot be written, so the next run searches again for the fastest matrix products; set "
      "RED_GEMM_CACHE to a file that can, or to off",
      file_.string());
}

void GemmAlgorithms::read() {
  if (file_.empty()) return;
  std::ifstream in(file_);
  std::string line;
  if (!in || !std::getline(in, line) || line != kFormat || !std::getline(in, line) || line != made_for_)
    return;
  while (std::getline(in, line)) {
    const auto entry = parse_line(line);
    if (!entry) {
      log::rank_warning("{} has a line that is none of ours and is not used: {}", file_.string(), line);
      continue;
    }
    algorithms_.insert(*entry);
  }
}

bool GemmAlgorithms::write() const {
  // Written aside and renamed, so that readers see all of it or nothing.
  std::error_code error;
  std::filesystem::create_directories(file_.parent_path(), error);
  const std::filesystem::path aside = file_.string() + fmt::format(".{}", getpid());
  {
    std::ofstream out(aside);
    out << kFormat << "\n" << made_for_ << "\n";
    for (const auto& [key, algorithm] : algorithms_) out << line_of(key, algorithm);
    out.close();
    if (!out) return false;
  }
  std::filesystem::rename(aside, file_, error);
  return !error;
}

std::filesystem::path gemm_algorithms_file(const std::string& made_for) {
  const char* named = std::getenv("RED_GEMM_CACHE");
  if (named != nullptr) return std::string_view(named) == "off" ? std::filesystem::path() : named;
  std::string name = "gemm_algorithms_" + made_for + ".txt";
  for (char& c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '.') c = '_';
  }
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache != nullptr && *cache != '\0') return std::filesystem::path(cache) / "redllm" / name;
  if (home == nullptr || *home == '\0') return {};
  return std::filesystem::path(home) / ".cache" / "redllm" / name;
}

}  // namespace red::detail

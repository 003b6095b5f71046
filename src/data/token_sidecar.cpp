#include "data/token_sidecar.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "data/file_io.hpp"
#include "data/token_file.hpp"

namespace red::data {
namespace {

constexpr const char* kFormat = "redllm token file";
constexpr int64_t kMaxVocabulary = 1 << 24;

}  // namespace

double unigram_entropy(std::span<const int64_t> counts) {
  double total = 0.0;
  for (const int64_t count : counts) total += static_cast<double>(count);
  double nats = 0.0;
  for (const int64_t count : counts) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / total;
    nats -= share * std::log(share);
  }
  return nats;
}

void write_token_sidecar(const std::filesystem::path& prefix, const TokenSidecar& sidecar) {
  nlohmann::ordered_json json = {
      {"format", kFormat},
      {"documents", sidecar.statistics.documents},
      {"tokens", sidecar.statistics.tokens},
      {"text_bytes", sidecar.statistics.text_bytes},
      {"unigram_entropy", sidecar.statistics.unigram_entropy},
      {"tokenizer_sha256", sidecar.tokenizer_sha256},
      {"vocabulary_size", sidecar.vocabulary_size},
      {"build",
       {{"inputs", sidecar.inputs},
        {"field", sidecar.field},
        {"seed", sidecar.seed},
        {"shuffled", sidecar.shuffled},
        {"held_out", sidecar.held_out},
        {"bad_lines", sidecar.bad_lines}}},
  };
  if (!sidecar.targets_field.empty()) json["build"]["targets_field"] = sidecar.targets_field;
  OutputFile file(with_suffix(prefix, ".json"));
  // Names of files need not be UTF-8; JSON must.
  file.append(json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
  file.publish();
}

std::optional<TokenSidecar> read_token_sidecar(const std::filesystem::path& prefix) {
  const std::filesystem::path path = with_suffix(prefix, ".json");
  if (!std::filesystem::exists(path)) return std::nullopt;
  const InputFile file(path);
  std::string text(file.num_bytes(), '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  try {
    const auto json = nlohmann::json::parse(text);
    if (json.at("format") != kFormat) throw DataError("its format is not \"{}\"", kFormat);
    TokenSidecar sidecar;
    sidecar.statistics = {json.at("documents"), json.at("tokens"), json.at("text_bytes"),
                          json.at("unigram_entropy")};
    sidecar.tokenizer_sha256 = json.at("tokenizer_sha256");
    sidecar.vocabulary_size = json.at("vocabulary_size");
    if (sidecar.vocabulary_size < 1 || sidecar.vocabulary_size > kMaxVocabulary) {
      throw DataError("its vocabulary_size is {}", sidecar.vocabulary_size);
    }
    const auto& build = json.at("build");
    build.at("inputs").get_to(sidecar.inputs);
    sidecar.field = build.at("field");
    sidecar.targets_field = build.value("targets_field", "");
    sidecar.seed = build.at("seed");
    sidecar.shuffled = build.at("shuffled");
    sidecar.held_out = build.at("held_out");
    sidecar.bad_lines = build.at("bad_lines");
    return sidecar;
  } catch (const std::exception& error) {
    throw DataError("{}: does not describe a token file ({}); remove it or build the file again",
                    path.string(), error.what());
  }
}

void check_tokenizer(const std::filesystem::path& prefix, const std::string& tokenizer_sha256) {
  if (tokenizer_sha256.empty()) return;
  const auto sidecar = read_token_sidecar(prefix);
  if (!sidecar || sidecar->tokenizer_sha256 == tokenizer_sha256) return;
  throw DataError(
      "{}.bin: was built with the tokenizer of SHA-256 {}, not with {}; use that one, or build the file "
      "again",
      prefix.string(), sidecar->tokenizer_sha256, tokenizer_sha256);
}

}  // namespace red::data

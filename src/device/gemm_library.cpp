#include "device/gemm_library.hpp"

#include <utility>

#include "base/error.hpp"
#include "device/gemm_libraries.hpp"

namespace red {
namespace {

constexpr std::pair<GemmChoice, std::string_view> kNames[] = {{GemmChoice::automatic, "auto"},
                                                              {GemmChoice::openblas, "openblas"},
                                                              {GemmChoice::onednn, "onednn"},
                                                              {GemmChoice::plain, "plain"}};

}  // namespace

std::string_view name_of(GemmChoice choice) {
  for (const auto& [value, name] : kNames) {
    if (value == choice) return name;
  }
  return "?";
}

GemmChoice parse_gemm_choice(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (name == text) return value;
  }
  throw ConfigError("'{}' is no GEMM library; choose auto, openblas, onednn or plain", text);
}

const GemmLibrary& gemm_library(GemmChoice choice) {
  static const GemmLibrary plain{GemmChoice::plain, detail::plain_sgemm, "plain loops"};
  static const detail::GemmCandidate openblas = detail::load_openblas();
  if (choice == GemmChoice::plain || (choice == GemmChoice::automatic && !openblas.library)) return plain;
  if (choice == GemmChoice::onednn || !openblas.library) {
    throw ConfigError("the GEMM library {} cannot be used: {}", name_of(choice), openblas.problem);
  }
  return *openblas.library;
}

}  // namespace red

// On a GPU there is one library; what can be chosen is how exactly it multiplies fp32.
#include <cublasLt.h>

#include "base/error.hpp"
#include "device/gemm_library.hpp"

namespace red {
namespace {

std::string version_text() {
  const std::size_t version = cublasLtGetVersion();
  return fmt::format("cuBLASLt {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace

bool GemmLibrary::has_bf16_arithmetic() const {
  return true;  // of every GPU that kernels are compiled for
}

std::string_view name_of(GemmChoice choice) {
  return choice == GemmChoice::tf32 ? "tf32" : "auto";
}

GemmChoice parse_gemm_choice(std::string_view text) {
  if (text == "auto") return GemmChoice::automatic;
  if (text == "tf32") return GemmChoice::tf32;
  throw ConfigError(
      "train.gemm = {}: redllm-cuda multiplies by cuBLASLt; choose auto, or tf32 for faster and coarser fp32 "
      "products",
      text);
}

bool gemm_usable(GemmChoice) {
  return true;
}

const GemmLibrary& gemm_library(GemmChoice choice) {
  static const GemmLibrary exact{GemmChoice::automatic, nullptr, version_text()};
  static const GemmLibrary tf32{GemmChoice::tf32, nullptr, version_text() + ", TF32"};
  return choice == GemmChoice::tf32 ? tf32 : exact;
}

const GemmLibrary& gemm_library_with_bf16(GemmChoice choice) {
  return gemm_library(choice);
}

}  // namespace red

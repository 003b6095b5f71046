#include "runtime/options.hpp"

#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "runtime/failure.hpp"

namespace cuda_on_cpu {
namespace {

template <class T>
void read_name(T& value, const char* variable, std::initializer_list<std::pair<std::string_view, T>> names) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return;
  std::string known;
  for (const auto& [name, meaning] : names) {
    if (name == text) {
      value = meaning;
      return;
    }
    known += fmt::format(" {}", name);
  }
  fail("{}={} is not known; there are:{}", variable, text, known);
}

template <class T>
void read_number(T& value, const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr) return;
  char* end = nullptr;
  value = static_cast<T>(std::strtoull(text, &end, 10));
  if (end == text || *end != '\0') fail("{}={} is no number", variable, text);
}

Options from_environment() {
  Options options;
  read_name(
      options.threads, "CUDA_ON_CPU_THREADS",
      {{"natural", ThreadOrder::natural}, {"reversed", ThreadOrder::reversed}, {"warp", ThreadOrder::warp}});
  read_name(options.streams, "CUDA_ON_CPU_STREAMS",
            {{"lazy", StreamOrder::lazy}, {"random", StreamOrder::random}, {"eager", StreamOrder::eager}});
  read_name(options.algorithms, "CUDA_ON_CPU_ALGORITHMS",
            {{"equal", AlgorithmSums::equal}, {"differ", AlgorithmSums::differ}});
  read_number(options.fastest, "CUDA_ON_CPU_FASTEST");
  read_number(options.seed, "CUDA_ON_CPU_SEED");
  read_number(options.num_devices, "CUDA_ON_CPU_DEVICES");
  read_name(options.divided, "CUDA_ON_CPU_MIG", {{"0", false}, {"1", true}});
  read_number(options.memory_bytes, "CUDA_ON_CPU_MEMORY");
  if (const char* name = std::getenv("CUDA_ON_CPU_NAME")) options.device_name = name;
  read_number(options.stuck_s, "CUDA_ON_CPU_STUCK");
  return options;
}

}  // namespace

Options& options() {
  static Options options = from_environment();
  return options;
}

}  // namespace cuda_on_cpu

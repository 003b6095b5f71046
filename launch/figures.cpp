#include "launch/figures.hpp"

#include <fmt/format.h>

#include "device/backend.hpp"
#include "model/parameter.hpp"

namespace red::launch {

nlohmann::ordered_json figures_of_run(const config::RunConfig& config, const Ranks& ranks) {
  return {{"model", config.model.name},
          {"kind", config.model.kind == model::Kind::red ? "red" : "dec"},
          {"parameters", model::num_parameters(config.model)},
          {"dtype", name_of(config.train.precision)},
          {"ranks", ranks.world.size()},
          {"layout", ranks.mesh.layout().to_string()},
          {"threads", ranks.stream.threads().num_threads()},
          {"device", device_description()},
          {"gemm", ranks.stream.gemm().description}};
}

config::CommandOption device_option() {
  return {"device", "NAME", "cpu or cuda: a check, which ends with 2 and names the program that has it",
          false};
}

void check_device(const config::CommandLine& line) {
  const std::string wanted = line.get("device", std::string(backend_name()));
  if (wanted == backend_name()) return;
  if (wanted != "cpu" && wanted != "cuda") throw ConfigError("--device {}: choose cpu or cuda", wanted);
  throw ConfigError(
      "--device {}: this program computes on {}; run {} instead (launch/program.sh prints "
      "the one that suits a machine)",
      wanted, backend_name() == "cpu" ? "the CPU" : "a GPU", wanted == "cpu" ? "redllm" : "redllm-cuda");
}

void print_figures(const nlohmann::ordered_json& figures, bool as_json) {
  if (as_json) {
    fmt::print("{}\n", figures.dump());
    return;
  }
  for (const auto& [key, value] : figures.items()) {
    if (!value.is_object())
      fmt::print("{:<24} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  for (const auto& group : figures) {
    if (!group.is_object()) continue;
    for (const auto& [key, value] : group.items())
      fmt::print("  {:<22} {:.4f} s\n", key, value.get<double>());
  }
}

}  // namespace red::launch

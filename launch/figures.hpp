// What the benchmarks of `redllm bench` share: what they say first, and how figures are printed.
#pragma once

#include <nlohmann/json.hpp>

#include "config/command_line.hpp"
#include "config/run_config.hpp"
#include "launch/ranks.hpp"

namespace red::launch {

/// What every benchmark says first: model, kind, parameters, dtype, ranks, layout, threads, gemm. The
/// precision has to be settled.
nlohmann::ordered_json figures_of_run(const config::RunConfig& config, const Ranks& ranks);

/// --device cpu|cuda, which every benchmark takes: a check, as backends are programs of their own.
config::CommandOption device_option();
/// Throws ConfigError where this is the other program, with its name.
void check_device(const config::CommandLine& line);

/// One line of JSON, or a line per figure; objects of seconds come last.
void print_figures(const nlohmann::ordered_json& figures, bool as_json);

}  // namespace red::launch

#include "launch/bench_ops.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "config/command_line.hpp"
#include "config/validate.hpp"
#include "data/source_provider.hpp"
#include "device/backend.hpp"
#include "device/gpu_specs.hpp"
#include "launch/commands.hpp"
#include "launch/figures.hpp"
#include "launch/median.hpp"
#include "launch/op_cases.hpp"
#include "launch/op_rows.hpp"
#include "ops/attention_library.hpp"
#include "ops/elementwise.hpp"
#include "train/machine.hpp"
#include "train/precision.hpp"

namespace red::launch {
namespace {

using Clock = std::chrono::steady_clock;

config::CommandSpec spec() {
  return {
      .name = "bench ops",
      .summary =
          "Times the ops of a training step one by one, at a model's shapes for one micro-batch: how often a "
          "step runs\n"
          "it, microseconds, GFLOP/s, GB/s (operands read once, results written once), and the share of what "
          "bounds it:\n"
          "matrix products or memory, as NVIDIA states them of a GPU that is known (docs/metrics.md),\n"
          "else as measured here first. Operands that stay in a cache exceed the memory's rate. On a GPU\n"
          "a product stands beside the fastest of all algorithms that cuBLASLt proposes, and attention\n"
          "beside cuDNN's where it is linked, or why cuDNN refuses the shape. Operands hold numbers of both\n"
          "signs that differ in all their bits, as equal ones would let a GPU run faster. On one rank.",
      .options = {{"only", "TEXT", "ops with this in their name", false},
                  {"seconds", "S", "of each op (default 0.2)", false},
                  device_option(),
                  {"json", "", "one JSON object on one line", false}},
      .takes_config = true,
      .example = "build/release/redllm bench ops --config configs/bench/red_150m.ini --only gradient"};
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

/// Seconds of one run: the median of five stretches of many.
double time_of(Stream& stream, const std::function<void(Stream&)>& run, double seconds) {
  constexpr int stretches = 5;
  const auto repeat = [&](int64_t times) {
    const auto begin = Clock::now();
    for (int64_t i = 0; i < times; ++i) run(stream);
    stream.synchronize();
    return seconds_since(begin);
  };
  repeat(1);  // warms up
  const double once = std::max(repeat(1), 1e-7);
  const int64_t times = std::clamp<int64_t>(static_cast<int64_t>(seconds / stretches / once), 1, 100000);
  std::vector<double> each;
  each.reserve(stretches);
  for (int i = 0; i < stretches; ++i) each.push_back(repeat(times) / static_cast<double>(times));
  return median(each);
}

double copy_gb_per_s(Stream& stream, int64_t rows, double seconds) {
  constexpr int64_t cols = 8192;
  const auto build = [&](OpMemory& memory) {
    return std::pair(memory.tensor(rows, cols, DType::fp32), memory.tensor(rows, cols, DType::fp32));
  };
  OpMemory count;
  build(count);
  OpMemory memory(stream, count.peak());
  const auto [x, y] = build(memory);
  const double once = time_of(
      stream, [&, x = x, y = y](Stream& s) { ops::copy(s, y, x); }, seconds);
  return 2.0 * static_cast<double>(rows * cols * static_cast<int64_t>(sizeof(float))) / once / 1e9;
}

/// Bytes read and written by a copy far larger than any cache.
double memory_gb_per_s(Stream& stream, double seconds) {
  constexpr double fast = 0.5;
  const double small = copy_gb_per_s(stream, 64, seconds);
  return small < fast ? small : copy_gb_per_s(stream, 8192, seconds);
}

struct Limits {
  double gflops = 0.0, gb_per_s = 0.0;
};

Limits measured_limits(Stream& stream, DType dtype, double seconds) {
  return {train::measured_peak_gflops(stream, dtype), memory_gb_per_s(stream, seconds)};
}

constexpr const char* kLibrary = ", cuDNN";  ///< behind the name of an op that it does

/// Nothing on a CPU and for a GPU that is not in the table.
std::optional<Limits> stated_limits(Stream& stream, DType dtype) {
  const auto gpu = gpu_facts();
  const GpuSpecs* specs = gpu ? find_gpu_specs(gpu->name) : nullptr;
  if (specs == nullptr) return std::nullopt;
  return Limits{stated_gflops(*specs, dtype, stream.gemm().choice), specs->memory_gb_per_s};
}

/// `name`: the op's own, or that of its other implementation, which may refuse the shape.
nlohmann::ordered_json figures_of(const OpCase& op, const std::string& name, const Limits& limits,
                                  Stream& stream, double seconds) {
  OpMemory count;
  op.build(count);
  OpMemory memory(stream, count.peak());
  const OpWork work = op.build(memory);
  work.run(stream);  // a library is tried first
  const int64_t passes = ops::attention_library_passes();
  const double once = time_of(stream, work.run, seconds);
  if (stream.attention() == AttentionChoice::cudnn && ops::attention_library_passes() == passes)
    return refused_row(name, op.shape, ops::attention_library_refusal());
  const double least = std::max(work.flops / 1e9 / limits.gflops, work.bytes / 1e9 / limits.gb_per_s);
  nlohmann::ordered_json figures = {
      {"op", name},
      {"shape", op.shape},
      {"runs", op.per_micro_batch + op.per_step},
      {"us", 1e6 * once},
      {"gflops_per_s", work.flops / once / 1e9},
      {"gb_per_s", work.bytes / once / 1e9},
      {"bound_by", work.flops / limits.gflops > work.bytes / limits.gb_per_s ? "products" : "memory"},
      {"share", least / once}};
  if (const auto best = work.search ? work.search(stream) : std::nullopt) {
    figures["searched_us"] = 1e6 * best->seconds;
    figures["searched_algorithms"] = best->tried;
  }
  return figures;
}

/// All of them with this in their names, into the figures; printed as they come unless it is for JSON.
void time_ops(const std::vector<OpCase>& ops, const std::string& only, const Limits& limits, Stream& stream,
              double seconds, nlohmann::ordered_json& figures, bool as_json) {
  const auto time = [&](const OpCase& op, const std::string& name, AttentionChoice attention) {
    if (name.find(only) == std::string::npos) return;
    stream.use_attention(attention);
    const auto row = figures_of(op, name, limits, stream, seconds);
    figures["ops"].push_back(row);
    if (!as_json) fmt::print("{}\n", op_table_line(row));
  };
  for (const OpCase& op : ops) {
    time(op, op.name, AttentionChoice::own);
    if (op.attention && ops::has_attention_library()) time(op, op.name + kLibrary, AttentionChoice::cudnn);
  }
}

/// Of what runs by our own kernels, as a step does unless it is told otherwise.
void print_sum(const nlohmann::ordered_json& ops) {
  double all = 0.0, least = 0.0;
  for (const nlohmann::ordered_json& row : ops) {
    if (row["op"].get<std::string>().ends_with(kLibrary)) continue;
    const double us = row["runs"].get<double>() * row["us"].get<double>();
    all += us;
    least += us * row["share"].get<double>();
  }
  fmt::print("\nall their runs in a step of one micro-batch: {:.1f} ms; {:.1f} ms by what bounds them\n",
             all / 1e3, least / 1e3);
}

int run(const Ranks& ranks, config::RunConfig config, const std::string& only, double seconds, bool as_json) {
  Stream& stream = ranks.stream;
  config.train.precision = train::settle_precision(config.train.precision, std::nullopt, ranks.world, stream);
  const data::SampleLengths lengths = data::sample_lengths(config.data, config.model.has_encoder());
  const int num_threads = stream.threads().num_threads();
  stream.reserve_scratch(op_scratch_bytes(config, lengths, num_threads));
  const DType dtype = config.train.precision == model::Precision::bf16 ? DType::bf16 : DType::fp32;
  const Limits measured = measured_limits(stream, dtype, seconds);
  const auto stated = stated_limits(stream, dtype);
  nlohmann::ordered_json figures = figures_of_run(config, ranks);
  figures.update({{"micro_batch", config.train.micro_batch},
                  {"window", config.data.window},
                  {"peak_gflops_per_s", measured.gflops},
                  {"memory_gb_per_s", measured.gb_per_s},
                  {"bounds", stated ? "stated" : "measured"}});
  if (stated)
    figures.update({{"stated_gflops_per_s", stated->gflops}, {"stated_gb_per_s", stated->gb_per_s}});
  if (!as_json) {
    print_figures(figures, false);
    fmt::print("\n{}\n", op_table_head(backend_name() == "cuda"));
  }
  time_ops(op_cases(config, lengths), only, stated.value_or(measured), stream, seconds, figures, as_json);
  if (figures.find("ops") == figures.end())
    throw ConfigError("bench ops: no op has --only '{}' in its name; without it all are listed", only);
  if (as_json) {
    print_figures(figures, true);
  } else {
    print_sum(figures["ops"]);
  }
  return 0;
}

}  // namespace

int bench_ops(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  check_device(line);
  config::Loaded loaded = config::load(line.sources());
  loaded.config.parallel = {};
  loaded.config.train.global_batch = loaded.config.train.micro_batch;
  config::validate(loaded, config::kBenchUse);
  const double seconds = line.get_number("seconds", 0.2, 1e-3, 3600.0);
  return run_on_ranks(
      loaded.config,
      [](int num_ranks) {
        if (num_ranks != 1) throw ConfigError("bench ops runs on one rank, here are {}", num_ranks);
        return parallel::Layout{};
      },
      [&](const Ranks& ranks) {
        return run(ranks, loaded.config, line.get("only", ""), seconds, line.has("json"));
      });
}

}  // namespace red::launch

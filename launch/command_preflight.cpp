// redllm preflight: whether the machines that a run was given are fit for it, in less than a minute.
#include <fmt/format.h>

#include <cstring>
#include <fstream>
#include <set>

#include "base/log.hpp"
#include "base/stop_signal.hpp"
#include "config/command_line.hpp"
#include "config/validate.hpp"
#include "data/source_provider.hpp"
#include "launch/commands.hpp"
#include "launch/inspect_print.hpp"
#include "launch/node_lines.hpp"
#include "launch/preflight_probe.hpp"
#include "launch/preflight_report.hpp"
#include "train/precision.hpp"
#include "train/run_options.hpp"

namespace red::launch {
namespace {

using nlohmann::ordered_json;
using train::bytes_text;

config::CommandSpec spec() {
  return {
      .name = "preflight",
      .summary =
          "Tries the machines that a run was given, before it trains: started as `redllm train` will be,\n"
          "with the same options. Each rank reports node, cores, versions of libraries, free memory and\n"
          "disk, and its GPU's clocks, heat and errors; all multiply matrices and add up over each node and "
          "each pair of neighbouring nodes;\n"
          "clocks are compared. Names what is slower than the median, what differs, is off or full, and\n"
          "ends with exit code 9 then; with 75 where it was asked to stop.",
      .options = {{"slower-by", "SHARE", "of the median that a rate may be below it (default 0.15)", false},
                  {"max-clock-offset", "SECONDS", "that a node's clock may be off (default 0.5)", false},
                  {"checkpoints", "N", "checkpoints that the disk must have room for (default 2)", false},
                  {"seconds", "SECONDS", "of products (default 1)", false},
                  {"mib", "MIB", "of each all-reduce (default 16)", false},
                  {"timeout", "SECONDS", "a wait that takes longer ends it with exit code 6 (default 60)",
                   false},
                  {"tasks", "N", "that the scheduler gave the job: as many ranks must there be", false},
                  {"exclude-file", "FILE",
                   "adds the names of nodes to do without, one a line; sbatch --exclude=FILE reads them",
                   false},
                  {"json", "", "one JSON object: every rank's report, and what was found", false}},
      .takes_config = true,
      .example =
          "launch/local.sh -n 4 build/release/redllm preflight --config configs/models/red_tiny.ini \\\n"
          "  --config my_run.ini --parallel.data=2 --parallel.encoder_stages=1"};
}

void print_table(const std::vector<RankReport>& reports) {
  fmt::print("{:<20} {:>6} {:>14} {:>12} {:>12} {:>12} {:>12} {:>10}\n", "node", "ranks", "GFLOP/s a rank",
             "node GB/s", "next GB/s", "memory free", "disk free", "clock, ms");
  const auto rate = [](double gb_s) { return gb_s > 0.0 ? fmt::format("{:.2f}", gb_s) : std::string("-"); };
  for (const NodeSummary& node : nodes_of(reports))
    fmt::print("{:<20} {:>6} {:>14.1f} {:>12} {:>12} {:>12} {:>12} {:>10.3f}\n", node.name, node.ranks.size(),
               node.gemm_gflops, rate(node.local_gb_s), rate(node.next_gb_s), bytes_text(node.memory_free),
               bytes_text(node.disk_free), 1e3 * node.clock_s);
}

void print_json(const std::vector<RankReport>& reports, const std::vector<Finding>& findings) {
  ordered_json json;
  json["sound"] = std::none_of(findings.begin(), findings.end(), [](const Finding& f) { return f.stops; });
  json["findings"] = ordered_json::array();
  for (const Finding& finding : findings)
    json["findings"].push_back({{"text", finding.text}, {"nodes", finding.nodes}, {"stops", finding.stops}});
  json["ranks"] = ordered_json::array();
  for (const RankReport& report : reports) json["ranks"].push_back(ordered_json::parse(to_json(report)));
  print_object(json);
}

void add_to_exclusions(const std::string& path, const std::vector<Finding>& findings) {
  std::set<std::string> known, fresh;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) known.insert(line);
  for (const Finding& finding : findings) {
    for (const std::string& node : finding.nodes) {
      if (finding.stops && !known.contains(node)) fresh.insert(node);
    }
  }
  if (fresh.empty()) return;
  std::ofstream out(path, std::ios::app);
  for (const std::string& node : fresh) out << node << '\n';
  out.close();
  if (!out) throw IoError("{}: cannot write: {}", path, std::strerror(errno));
}

/// The same on every rank, as the reports are.
int report(const std::vector<RankReport>& reports, const PreflightLimits& limits,
           const config::CommandLine& line, bool speaks) {
  const std::vector<Finding> findings = judge(reports, limits);
  const bool sound = std::none_of(findings.begin(), findings.end(), [](const Finding& f) { return f.stops; });
  if (speaks) {
    if (line.has("json")) {
      print_json(reports, findings);
    } else {
      print_table(reports);
      fmt::print("\n{}", node_lines(reports));
      if (const std::string gpus = gpu_table(reports); !gpus.empty()) fmt::print("\n{}", gpus);
    }
    for (const Finding& finding : findings) {
      if (finding.stops) {
        log::rank_error("preflight: {}", finding.text);
      } else {
        log::warning("preflight: {}", finding.text);
      }
    }
    if (line.has("exclude-file")) add_to_exclusions(line.get("exclude-file"), findings);
    if (sound) log::info("preflight: {} ranks are fit for the run", reports.size());
  }
  return static_cast<int>(sound ? ExitCode::ok : ExitCode::machine);
}

/// Whether any rank was asked to stop meanwhile. Collective.
bool asked_to_stop(parallel::Communicator& world) {
  double asked = stop_signal() != 0 ? 1.0 : 0.0;
  parallel::Request request = world.all_reduce(make_tensor(&asked, 1, 1), parallel::ReduceOp::max);
  world.wait(request, "whether a rank was asked to stop");
  return asked != 0.0;
}

}  // namespace

int run_preflight(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  PreflightLimits limits;
  limits.slower_by = line.get_number("slower-by", limits.slower_by, 0.0, 1.0);
  limits.clock_s = line.get_number("max-clock-offset", limits.clock_s, 0.0, 1e6);
  limits.scheduled_tasks = static_cast<int>(line.get_integer("tasks", 0, 1, 1000000));
  const int64_t checkpoints = line.get_integer("checkpoints", 2, 0, 1000000000);
  config::Loaded loaded = config::load(line.sources());
  config::RunConfig& config = loaded.config;
  config::validate(loaded, config::kTrainUse);
  config.train.timeout_s = line.get_number("timeout", 60, 1.0, 1e6);
  ProbeOptions options;
  options.run_dir = config.train.run_dir;
  options.gemm_s = line.get_number("seconds", options.gemm_s, 0.0, 3600.0);
  options.mib = line.get_integer("mib", options.mib, 1, 65536);
  catch_stop_signals();
  return run_on_ranks(
      config, [&](int) { return config.parallel; },
      [&](const Ranks& ranks) {
        config.train.precision =
            train::settle_precision(config.train.precision, std::nullopt, ranks.world, ranks.stream);
        const data::SampleLengths lengths = data::sample_lengths(config.data, config.model.has_encoder());
        const train::EngineOptions engine = train::training_options(config, lengths);
        const train::MemoryPlan plan =
            train::plan_memory(engine, config.parallel, ranks.stream.threads().num_threads());
        options.dtype = engine.dtype;
        limits.disk_needed = plan.checkpoint_bytes() * static_cast<uint64_t>(checkpoints);
        const int code = report(probe(ranks, plan, options), limits, line, ranks.world.rank() == 0);
        // What is not fit stays so, whoever asks.
        return asked_to_stop(ranks.world) && code == 0 ? static_cast<int>(ExitCode::stopped) : code;
      });
}

}  // namespace red::launch

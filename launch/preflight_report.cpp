#include "launch/preflight_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "device/numa.hpp"

namespace red::launch {
namespace {

std::string bytes_text(uint64_t num_bytes) {
  return fmt::format("{:.1f} GiB", static_cast<double>(num_bytes) / (1 << 30));
}

/// Of an even number of rates the higher of the two in the middle: of two nodes the slower one stands out.
double upper_median(std::vector<double> rates) {
  const auto middle = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

/// Rates that are too far below the median, by their index; rates of 0 were not measured.
std::vector<std::size_t> slow_ones(const std::vector<double>& rates, double slower_by, double& median) {
  std::vector<double> measured;
  std::copy_if(rates.begin(), rates.end(), std::back_inserter(measured), [](double r) { return r > 0.0; });
  std::vector<std::size_t> slow;
  if (measured.size() < 2) return slow;
  median = upper_median(measured);
  for (std::size_t i = 0; i < rates.size(); ++i) {
    if (rates[i] > 0.0 && rates[i] < (1.0 - slower_by) * median) slow.push_back(i);
  }
  return slow;
}

void find_slow_products(const std::vector<RankReport>& reports, const std::vector<NodeSummary>& nodes,
                        double slower_by, std::vector<Finding>& findings) {
  std::vector<double> rates;
  rates.reserve(nodes.size());
  for (const NodeSummary& node : nodes) rates.push_back(node.gemm_gflops);
  std::set<std::string> named;
  double median = 0.0;
  for (const std::size_t i : slow_ones(rates, slower_by, median)) {
    named.insert(nodes[i].name);
    findings.push_back(
        {fmt::format("node {} multiplies matrices at {:.1f} GFLOP/s a rank, the median is {:.1f}",
                     nodes[i].name, rates[i], median),
         {nodes[i].name}});
  }
  rates.clear();
  rates.reserve(reports.size());
  for (const RankReport& report : reports) rates.push_back(report.gemm_gflops);
  for (const std::size_t i : slow_ones(rates, slower_by, median)) {
    if (named.contains(reports[i].node)) continue;
    findings.push_back(
        {fmt::format("rank {} on node {} multiplies matrices at {:.1f} GFLOP/s, the median is {:.1f}",
                     reports[i].rank, reports[i].node, rates[i], median),
         {reports[i].node}});
  }
}

/// A slow pair is blamed on the node whose pairs are all slow, where it has two; else on both.
void find_slow_pairs(const std::vector<NodeSummary>& nodes, double slower_by,
                     std::vector<Finding>& findings) {
  std::vector<double> rates;
  rates.reserve(nodes.size());
  for (const NodeSummary& node : nodes) rates.push_back(node.next_gb_s);
  double median = 0.0;
  const std::vector<std::size_t> slow = slow_ones(rates, slower_by, median);
  const auto is_slow = [&](std::size_t pair) {
    return std::find(slow.begin(), slow.end(), pair) != slow.end();
  };
  const auto all_slow = [&](std::size_t node) {
    return node > 0 && node + 1 < nodes.size() && is_slow(node - 1) && is_slow(node);
  };
  for (const std::size_t i : slow) {
    std::vector<std::string> blamed;
    for (const std::size_t node : {i, i + 1}) {
      if (all_slow(node)) blamed.push_back(nodes[node].name);
    }
    if (blamed.empty()) blamed = {nodes[i].name, nodes[i + 1].name};
    findings.push_back(
        {fmt::format("nodes {} and {} add up {:.2f} GB/s together, the median of neighbours is {:.2f}",
                     nodes[i].name, nodes[i + 1].name, rates[i], median),
         std::move(blamed)});
  }
}

void find_slow_nodes(const std::vector<NodeSummary>& nodes, double slower_by,
                     std::vector<Finding>& findings) {
  std::vector<double> rates;
  rates.reserve(nodes.size());
  for (const NodeSummary& node : nodes) rates.push_back(node.local_gb_s);
  double median = 0.0;
  for (const std::size_t i : slow_ones(rates, slower_by, median))
    findings.push_back(
        {fmt::format("the ranks of node {} add up {:.2f} GB/s together, the median of nodes is {:.2f}",
                     nodes[i].name, rates[i], median),
         {nodes[i].name}});
}

/// What most ranks have counts as right.
void find_other_values(const std::vector<RankReport>& reports, const std::string& what, bool stops,
                       const std::function<std::string(const RankReport&)>& value_of,
                       std::vector<Finding>& findings) {
  std::map<std::string, int> count;
  for (const RankReport& report : reports) {
    if (const std::string value = value_of(report); !value.empty()) ++count[value];
  }
  if (count.size() < 2) return;
  std::string most;  // of equally many the first rank's
  for (const RankReport& report : reports) {
    const std::string value = value_of(report);
    if (!value.empty() && (most.empty() || count[value] > count[most])) most = value;
  }
  std::map<std::string, std::set<std::string>> nodes_by_value;
  for (const RankReport& report : reports) {
    const std::string value = value_of(report);
    if (!value.empty() && value != most) nodes_by_value[value].insert(report.node);
  }
  for (const auto& [value, nodes] : nodes_by_value)
    findings.push_back(
        {fmt::format("{} on {} is \"{}\", elsewhere \"{}\"", what, fmt::join(nodes, ", "), value, most),
         {nodes.begin(), nodes.end()},
         stops});
}

void find_other_versions(const std::vector<RankReport>& reports, std::vector<Finding>& findings) {
  std::set<std::string> names;
  for (const RankReport& report : reports) {
    for (const auto& [name, version] : report.versions) names.insert(name);
  }
  for (const std::string& name : names) {
    find_other_values(
        reports, name, true,
        [&](const RankReport& report) {
          const auto found = report.versions.find(name);
          return found == report.versions.end() ? std::string() : found->second;
        },
        findings);
  }
  find_other_values(
      reports, "the processor", false, [](const RankReport& report) { return report.processor; }, findings);
}

/// Rank 0's clock, by which all are measured, may be the one that is off: the median is right, of two the one
/// nearer to rank 0's.
void find_clocks(const std::vector<NodeSummary>& nodes, double limit_s, std::vector<Finding>& findings) {
  std::vector<double> clocks;
  clocks.reserve(nodes.size());
  for (const NodeSummary& node : nodes) clocks.push_back(node.clock_s);
  std::sort(clocks.begin(), clocks.end());
  const double low = clocks[(clocks.size() - 1) / 2], high = clocks[clocks.size() / 2];
  const double right = std::abs(low) < std::abs(high) ? low : high;
  for (const NodeSummary& node : nodes) {
    const double off_s = node.clock_s - right;
    if (std::abs(off_s) - node.clock_uncertainty_s <= limit_s) continue;
    findings.push_back(
        {fmt::format(
             "the clock of node {} is {:.3f} s {} the other nodes' (+- {:.3f} s): set it (chrony, ntpd)",
             node.name, std::abs(off_s), off_s > 0 ? "ahead of" : "behind", node.clock_uncertainty_s),
         {node.name}});
  }
}

void find_full(const std::vector<RankReport>& reports, const std::vector<NodeSummary>& nodes,
               uint64_t disk_needed, std::vector<Finding>& findings) {
  // A rank of each node tries the disk.
  const auto failed = std::count_if(reports.begin(), reports.end(),
                                    [](const RankReport& report) { return !report.disk_error.empty(); });
  const bool all_failed = failed == static_cast<std::ptrdiff_t>(nodes.size());
  for (const RankReport& report : reports) {
    if (report.disk_error.empty()) continue;
    findings.push_back(
        {fmt::format("{} {}: {}", all_failed ? "every node, first" : "node", report.node, report.disk_error),
         all_failed ? std::vector<std::string>() : std::vector{report.node}});
    if (all_failed) break;
  }
  std::vector<std::string> full;
  uint64_t least = 0;
  for (const NodeSummary& node : nodes) {
    if (node.disk_free >= disk_needed) continue;
    least = full.empty() ? node.disk_free : std::min(least, node.disk_free);
    full.push_back(node.name);
  }
  if (!full.empty())
    // Usually one file system that all share: no node is at fault.
    findings.push_back(
        {fmt::format("{} are free where the run's folder is, {} are needed for checkpoints (seen from "
                     "{}): make room, or give another train.run_dir",
                     bytes_text(least), bytes_text(disk_needed), fmt::join(full, ", ")),
         full.size() == nodes.size() ? std::vector<std::string>() : full});
  for (const NodeSummary& node : nodes) {
    if (node.memory_free == 0 || node.memory_free >= node.memory_needed) continue;
    const bool fits_elsewhere = std::any_of(nodes.begin(), nodes.end(), [&](const NodeSummary& other) {
      return other.memory_free >= node.memory_needed;
    });
    findings.push_back(
        {fmt::format("node {} has {} of memory free, its {} ranks need {} (redllm plan tells what for)",
                     node.name, bytes_text(node.memory_free), node.ranks.size(),
                     bytes_text(node.memory_needed)),
         fits_elsewhere ? std::vector{node.name} : std::vector<std::string>()});
  }
}

/// Threads beyond cores, and cores that two ranks share which are bound to different ones.
void find_bindings(const std::vector<RankReport>& reports, const std::vector<NodeSummary>& nodes,
                   std::vector<Finding>& findings) {
  for (const NodeSummary& node : nodes) {
    std::map<int, int> bound_to;  // core to the first bound rank on it
    std::set<int> cores;
    int threads = 0;
    std::string shared;
    for (const int rank : node.ranks) {
      const RankReport& report = reports[static_cast<std::size_t>(rank)];
      cores.insert(report.cores.begin(), report.cores.end());
      threads += report.threads;
      if (static_cast<int>(report.cores.size()) >= report.num_cores_of_host) continue;
      // Ranks that share the cores near their GPUs were meant to.
      if (report.gpu && report.gpu->near_cores == cpu_list_text(report.cores)) continue;
      for (const int core : report.cores) {
        const auto [first, is_new] = bound_to.emplace(core, rank);
        if (!is_new && shared.empty() &&
            reports[static_cast<std::size_t>(first->second)].cores != report.cores)
          shared = fmt::format("ranks {} and {} share core {}", first->second, rank, core);
      }
    }
    if (!shared.empty())
      findings.push_back(
          {fmt::format("node {}: {}; bind each rank to cores of its own (mpirun --map-by ...:PE=N, srun "
                       "--cpu-bind=cores)",
                       node.name, shared),
           {},
           false});
    if (threads > static_cast<int>(cores.size()))
      findings.push_back(
          {fmt::format("node {}: {} threads of {} ranks share {} cores; fewer ranks a node, or "
                       "train.threads",
                       node.name, threads, node.ranks.size(), cores.size()),
           {},
           false});
  }
}

}  // namespace

std::string to_json(const RankReport& r) {
  nlohmann::ordered_json json = {{"rank", r.rank},
                                 {"node", r.node},
                                 {"cores", r.cores},
                                 {"num_cores_of_host", r.num_cores_of_host},
                                 {"numa_nodes", r.numa_nodes},
                                 {"threads", r.threads},
                                 {"versions", r.versions},
                                 {"processor", r.processor},
                                 {"gemm_gflops", r.gemm_gflops},
                                 {"local_gb_s", r.local_gb_s},
                                 {"next_gb_s", r.next_gb_s},
                                 {"clock_s", r.clock_s},
                                 {"clock_uncertainty_s", r.clock_uncertainty_s},
                                 {"memory_free", r.memory_free},
                                 {"memory_needed", r.memory_needed},
                                 {"disk_free", r.disk_free},
                                 {"disk_error", r.disk_error}};
  if (r.gpu) json["gpu"] = nlohmann::ordered_json::parse(to_json(*r.gpu));
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<RankReport> reports_from(const std::string& lines) {
  std::vector<RankReport> reports;
  std::istringstream in(lines);
  for (std::string line; std::getline(in, line);) {
    try {
      const auto json = nlohmann::json::parse(line);
      RankReport& r = reports.emplace_back();
      json.at("rank").get_to(r.rank);
      json.at("node").get_to(r.node);
      json.at("cores").get_to(r.cores);
      json.at("num_cores_of_host").get_to(r.num_cores_of_host);
      json.at("numa_nodes").get_to(r.numa_nodes);
      json.at("threads").get_to(r.threads);
      json.at("versions").get_to(r.versions);
      json.at("processor").get_to(r.processor);
      json.at("gemm_gflops").get_to(r.gemm_gflops);
      json.at("local_gb_s").get_to(r.local_gb_s);
      json.at("next_gb_s").get_to(r.next_gb_s);
      json.at("clock_s").get_to(r.clock_s);
      json.at("clock_uncertainty_s").get_to(r.clock_uncertainty_s);
      json.at("memory_free").get_to(r.memory_free);
      json.at("memory_needed").get_to(r.memory_needed);
      json.at("disk_free").get_to(r.disk_free);
      json.at("disk_error").get_to(r.disk_error);
      if (json.contains("gpu")) r.gpu = gpu_report_from(json.at("gpu").dump());
    } catch (const nlohmann::json::exception& error) {
      throw LogicError("a rank's report cannot be read: {}", error.what());
    }
  }
  std::sort(reports.begin(), reports.end(), [](const auto& a, const auto& b) { return a.rank < b.rank; });
  return reports;
}

std::vector<int> node_indices(const std::vector<std::string>& node_of_rank) {
  std::vector<std::string> seen;
  std::vector<int> indices;
  for (const std::string& node : node_of_rank) {
    const auto found = std::find(seen.begin(), seen.end(), node);
    indices.push_back(static_cast<int>(found - seen.begin()));
    if (found == seen.end()) seen.push_back(node);
  }
  return indices;
}

std::vector<NodeSummary> nodes_of(const std::vector<RankReport>& reports) {
  std::vector<std::string> names;
  names.reserve(reports.size());
  for (const RankReport& report : reports) names.push_back(report.node);
  const std::vector<int> indices = node_indices(names);
  std::vector<NodeSummary> nodes;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const RankReport& r = reports[i];
    if (static_cast<std::size_t>(indices[i]) == nodes.size()) {
      nodes.push_back({.name = r.node,
                       .ranks = {},
                       .local_gb_s = r.local_gb_s,
                       .next_gb_s = r.next_gb_s,
                       .memory_free = r.memory_free,
                       .disk_free = r.disk_free});
    }
    NodeSummary& node = nodes[static_cast<std::size_t>(indices[i])];
    node.ranks.push_back(r.rank);
    node.gemm_gflops += r.gemm_gflops;
    node.local_gb_s = std::min(node.local_gb_s, r.local_gb_s);
    node.next_gb_s = std::min(node.next_gb_s, r.next_gb_s);
    if (std::abs(r.clock_s) >= std::abs(node.clock_s)) {
      node.clock_s = r.clock_s;
      node.clock_uncertainty_s = r.clock_uncertainty_s;
    }
    node.memory_free = std::min(node.memory_free, r.memory_free);
    node.memory_needed += r.memory_needed;
    node.disk_free = std::min(node.disk_free, r.disk_free);
  }
  for (NodeSummary& node : nodes) node.gemm_gflops /= static_cast<double>(node.ranks.size());
  return nodes;
}

std::vector<Finding> judge(const std::vector<RankReport>& reports, const PreflightLimits& limits) {
  std::vector<Finding> findings;
  const std::vector<NodeSummary> nodes = nodes_of(reports);
  if (limits.scheduled_tasks > 0 && limits.scheduled_tasks != static_cast<int>(reports.size()))
    findings.push_back(
        {fmt::format("the scheduler gave the job {} tasks, MPI has {} ranks: start as many ranks as tasks "
                     "(mpirun -n {}), or ask for {} tasks",
                     limits.scheduled_tasks, reports.size(), limits.scheduled_tasks, reports.size()),
         {}});
  find_other_versions(reports, findings);
  find_clocks(nodes, limits.clock_s, findings);
  find_full(reports, nodes, limits.disk_needed, findings);
  find_slow_products(reports, nodes, limits.slower_by, findings);
  find_slow_nodes(nodes, limits.slower_by, findings);
  find_slow_pairs(nodes, limits.slower_by, findings);
  find_bindings(reports, nodes, findings);
  find_gpus(reports, findings);
  return findings;
}

}  // namespace red::launch

#include "launch/node_lines.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "device/numa.hpp"

namespace red::launch {
namespace {

/// "bound to cores 0-7 of NUMA node 0 (8 threads)", "on all cores 0-15 (8 threads)".
std::string place_of(const RankReport& r) {
  const bool is_bound = static_cast<int>(r.cores.size()) < r.num_cores_of_host;
  std::string place = fmt::format("{} cores {}", is_bound ? "bound to" : "on all", cpu_list_text(r.cores));
  if (is_bound && !r.numa_nodes.empty())
    place +=
        fmt::format(" of NUMA node{} {}", r.numa_nodes.size() == 1 ? "" : "s", fmt::join(r.numa_nodes, ", "));
  return place + fmt::format(" ({} thread{})", r.threads, r.threads == 1 ? "" : "s");
}

/// "4 ranks bound to cores 0-7 (2 threads), 4 ranks bound to cores 8-15 (2 threads)", in their order.
std::string cores_text(const std::vector<RankReport>& reports, const NodeSummary& node) {
  std::vector<std::pair<std::string, int>> ranks;  // place, how many in a row
  for (const int rank : node.ranks) {
    std::string place = place_of(reports[static_cast<std::size_t>(rank)]);
    if (!ranks.empty() && ranks.back().first == place) {
      ++ranks.back().second;
    } else {
      ranks.emplace_back(std::move(place), 1);
    }
  }
  std::vector<std::string> parts;
  parts.reserve(ranks.size());
  for (const auto& [place, number] : ranks)
    parts.push_back(fmt::format("{} rank{} {}", number, number == 1 ? "" : "s", place));
  return fmt::format("{}", fmt::join(parts, ", "));
}

/// All that any of its ranks tells.
std::string versions_text(const std::vector<RankReport>& reports, const NodeSummary& node) {
  std::map<std::string, std::string> versions;
  for (const int rank : node.ranks) {
    const auto& own = reports[static_cast<std::size_t>(rank)].versions;
    versions.insert(own.begin(), own.end());
  }
  std::vector<std::string> parts;
  parts.reserve(versions.size());
  for (const auto& [name, version] : versions) parts.push_back(fmt::format("{}: {}", name, version));
  return fmt::format("{}", fmt::join(parts, "; "));
}

/// "n0, n1: what is told of both".
std::string by_text(const std::vector<NodeSummary>& nodes,
                    const std::function<std::string(const NodeSummary&)>& text_of) {
  std::vector<std::pair<std::string, std::vector<std::string>>> groups;  // in the order of nodes
  for (const NodeSummary& node : nodes) {
    std::string text = text_of(node);
    const auto known =
        std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == text; });
    if (known == groups.end()) {
      groups.emplace_back(std::move(text), std::vector{node.name});
    } else {
      known->second.push_back(node.name);
    }
  }
  std::string lines;
  for (const auto& [text, names] : groups) lines += fmt::format("{}: {}\n", fmt::join(names, ", "), text);
  return lines;
}

}  // namespace

std::string node_lines(const std::vector<RankReport>& reports) {
  const std::vector<NodeSummary> nodes = nodes_of(reports);
  return by_text(nodes, [&](const NodeSummary& node) { return cores_text(reports, node); }) +
         by_text(nodes, [&](const NodeSummary& node) { return versions_text(reports, node); });
}

}  // namespace red::launch

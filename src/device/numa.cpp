#include "device/numa.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.hpp"

namespace red {
namespace {

namespace fs = std::filesystem;

fs::path sysfs() {
  const char* named = std::getenv("RED_SYSFS");
  return named != nullptr ? named : "/sys";
}

std::optional<int> number_of(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace

NumaCores numa_cores() {
  NumaCores result;
  std::error_code error;
  for (fs::directory_iterator entry(sysfs() / "devices/system/node", error), end; !error && entry != end;
       entry.increment(error)) {
    constexpr std::string_view prefix = "node";
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    const auto node = number_of(std::string_view(name).substr(prefix.size()));
    std::vector<int> cores = parse_cpu_list(first_line(entry->path() / "cpulist"));
    if (node && !cores.empty()) result[*node] = std::move(cores);  // a node may have memory alone
  }
  return result;
}

std::optional<int> numa_node_of_pci(const std::string& address) {
  const auto node = number_of(first_line(sysfs() / "bus/pci/devices" / address / "numa_node"));
  return node && *node >= 0 ? node : std::nullopt;
}

std::set<int> numa_nodes_of(const std::vector<int>& cores, const NumaCores& numa) {
  std::set<int> nodes;
  for (const auto& [node, all] : numa) {
    const bool has_one = std::any_of(cores.begin(), cores.end(), [&all = all](int core) {
      return std::count(all.begin(), all.end(), core);
    });
    if (has_one) nodes.insert(node);
  }
  return nodes;
}

std::vector<int> parse_cpu_list(std::string_view text) {
  std::vector<int> cores;
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view part = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const std::size_t dash = std::min(part.find('-'), part.size());
    const auto first = number_of(part.substr(0, dash));
    const auto last = dash < part.size() ? number_of(part.substr(dash + 1)) : first;
    if (!first || !last || *first < 0 || *last < *first || *last >= CPU_SETSIZE) return {};
    for (int core = *first; core <= *last; ++core) cores.push_back(core);
  }
  return cores;
}

std::string cpu_list_text(const std::vector<int>& cores) {
  std::string text;
  for (std::size_t i = 0; i < cores.size();) {
    std::size_t last = i;
    while (last + 1 < cores.size() && cores[last + 1] == cores[last] + 1) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cores[i]);
    if (last > i) text += fmt::format("-{}", cores[last]);
    i = last + 1;
  }
  return text;
}

std::vector<int> own_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

void bind_to_cores(const std::vector<int>& cores) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(core, &set);
  if (sched_setaffinity(0, sizeof(set), &set) != 0)
    throw IoError("cannot bind to cores {}: {}; RED_BIND=off does not try", cpu_list_text(cores),
                  std::strerror(errno));
}

int share_of_cores(const std::vector<int>& own, const std::vector<std::vector<int>>& here) {
  double share = 0.0;
  for (const int core : own) {
    const auto ranks = std::count_if(here.begin(), here.end(), [core](const std::vector<int>& cores) {
      return std::find(cores.begin(), cores.end(), core) != cores.end();
    });
    share += 1.0 / static_cast<double>(std::max<std::ptrdiff_t>(ranks, 1));
  }
  constexpr double rounding = 1e-6;  // three thirds are one
  return std::max(1, static_cast<int>(share + rounding));
}

std::vector<int> cores_to_bind_to(const std::vector<int>& own, int num_cores_of_host,
                                  std::optional<int> gpu_node, const NumaCores& numa) {
  if (!gpu_node || static_cast<int>(own.size()) < num_cores_of_host) return {};
  const auto node = numa.find(*gpu_node);
  if (node == numa.end()) return {};
  std::vector<int> near;
  for (const int core : node->second) {
    if (std::find(own.begin(), own.end(), core) != own.end()) near.push_back(core);
  }
  return near.size() < own.size() ? near : std::vector<int>();
}

}  // namespace red

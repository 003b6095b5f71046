#include "launch/gpu_report.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "device/backend.hpp"
#include "device/numa.hpp"
#include "launch/preflight_report.hpp"

namespace red::launch {
namespace {

using Json = nlohmann::ordered_json;

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json(nullptr);
}

template <class T>
void take(const Json& json, const char* key, std::optional<T>& value) {
  const Json& found = json.at(key);
  value = found.is_null() ? std::nullopt : std::optional(found.get<T>());
}

template <class T>
std::string number_or_dash(const std::optional<T>& value) {
  return value ? fmt::format("{:.0f}", static_cast<double>(*value)) : "-";
}

/// Whether the rank runs on cores of other NUMA nodes alone.
bool is_far(const GpuReport& gpu) {
  return gpu.numa_node && !gpu.core_nodes.empty() && !gpu.core_nodes.contains(*gpu.numa_node);
}

void find_trouble(const RankReport& r, std::vector<Finding>& findings) {
  const GpuReport& gpu = *r.gpu;
  const std::string where = fmt::format("GPU {} ({} at {}) of rank {} on node {}", gpu.index, gpu.name,
                                        gpu.pci_address, r.rank, r.node);
  if (!gpu.state.lost.empty()) findings.push_back({loss_text(where, gpu.state.lost), {r.node}});
  if (!gpu.state.slowed_by.empty())
    findings.push_back(
        {fmt::format("{} is slowed by {}, at {} C, {} W and {} MHz: look at the node's cooling and "
                     "power supply",
                     where, fmt::join(gpu.state.slowed_by, " and "), number_or_dash(gpu.state.temperature_c),
                     number_or_dash(gpu.state.power_w), number_or_dash(gpu.state.sm_mhz)),
         {r.node}});
  if (gpu.state.ecc_errors.value_or(0) > 0)
    findings.push_back(
        {fmt::format("{} has {} errors of memory that ECC could not correct since its driver was "
                     "loaded: reset it (nvidia-smi --gpu-reset), replace it if they come back",
                     where, *gpu.state.ecc_errors),
         {r.node}});
  if (is_far(gpu))
    findings.push_back(
        {fmt::format("{} is on NUMA node {}, but the rank is bound to cores {} of NUMA node {}: bind "
                     "it to some of {} (docs/cuda.md, \"Which GPU, which cores\")",
                     where, *gpu.numa_node, cpu_list_text(r.cores), fmt::join(gpu.core_nodes, ", "),
                     gpu.near_cores),
         {},
         false});
}

double gib(uint64_t num_bytes) {
  return static_cast<double>(num_bytes) / (1 << 30);
}

/// Ranks may share a GPU. What one lacks is another process's, where a GPU elsewhere has enough for the same.
void find_full_gpus(const std::vector<RankReport>& reports, std::vector<Finding>& findings) {
  struct Gpu {
    const RankReport* first;  ///< of its ranks
    uint64_t needed = 0;
  };
  // By node and identity: instances of a GPU that is divided (MIG) have its address and memory of their own.
  std::map<std::pair<std::string, std::string>, Gpu> gpus;
  uint64_t most_free = 0;
  for (const RankReport& r : reports) {
    if (!r.gpu) continue;
    gpus.try_emplace({r.node, r.gpu->identity}, Gpu{&r}).first->second.needed += r.gpu->memory_needed;
    most_free = std::max(most_free, r.gpu->memory_free);
  }
  for (const auto& [place, gpu] : gpus) {
    const uint64_t free = gpu.first->gpu->memory_free;
    if (free >= gpu.needed) continue;
    findings.push_back(
        {fmt::format(
             "GPU {} of rank {} on node {} has {:.1f} GiB of memory free, what runs on it needs {:.1f} GiB "
             "(nvidia-smi tells who has the rest, redllm plan what it is needed for)",
             gpu.first->gpu->index, gpu.first->rank, gpu.first->node, gib(free), gib(gpu.needed)),
         most_free >= gpu.needed ? std::vector{gpu.first->node} : std::vector<std::string>()});
  }
}

}  // namespace

std::optional<GpuReport> look_at_gpu(const std::vector<int>& cores) {
  const auto facts = gpu_facts();
  if (!facts) return std::nullopt;
  const NumaCores numa = numa_cores();
  GpuReport report;
  report.index = facts->index;
  report.name = facts->name;
  report.pci_address = facts->pci_address;
  report.identity = fmt::format("{:02x}", fmt::join(facts->identity, ""));
  report.numa_node = numa_node_of_pci(facts->pci_address);
  const auto near = report.numa_node ? numa.find(*report.numa_node) : numa.end();
  if (near != numa.end()) report.near_cores = cpu_list_text(near->second);
  report.core_nodes = numa_nodes_of(cores, numa);
  report.memory_free = free_gpu_memory().value_or(0);
  return report;
}

std::string to_json(const GpuReport& r) {
  const Json json = {{"index", r.index},
                     {"name", r.name},
                     {"pci_address", r.pci_address},
                     {"identity", r.identity},
                     {"numa_node", or_null(r.numa_node)},
                     {"near_cores", r.near_cores},
                     {"core_nodes", r.core_nodes},
                     {"no_sensors", r.no_sensors},
                     {"driver", r.driver},
                     {"memory_free", r.memory_free},
                     {"memory_needed", r.memory_needed},
                     {"sm_mhz", or_null(r.state.sm_mhz)},
                     {"memory_mhz", or_null(r.state.memory_mhz)},
                     {"temperature_c", or_null(r.state.temperature_c)},
                     {"power_w", or_null(r.state.power_w)},
                     {"power_limit_w", or_null(r.state.power_limit_w)},
                     {"power_capped", r.state.power_capped},
                     {"slowed_by", r.state.slowed_by},
                     {"ecc_errors", or_null(r.state.ecc_errors)},
                     {"lost", r.state.lost}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

GpuReport gpu_report_from(const std::string& text) {
  const Json json = Json::parse(text);
  GpuReport r;
  json.at("index").get_to(r.index);
  json.at("name").get_to(r.name);
  json.at("pci_address").get_to(r.pci_address);
  json.at("identity").get_to(r.identity);
  take(json, "numa_node", r.numa_node);
  json.at("near_cores").get_to(r.near_cores);
  json.at("core_nodes").get_to(r.core_nodes);
  json.at("no_sensors").get_to(r.no_sensors);
  json.at("driver").get_to(r.driver);
  json.at("memory_free").get_to(r.memory_free);
  json.at("memory_needed").get_to(r.memory_needed);
  take(json, "sm_mhz", r.state.sm_mhz);
  take(json, "memory_mhz", r.state.memory_mhz);
  take(json, "temperature_c", r.state.temperature_c);
  take(json, "power_w", r.state.power_w);
  take(json, "power_limit_w", r.state.power_limit_w);
  json.at("power_capped").get_to(r.state.power_capped);
  json.at("slowed_by").get_to(r.state.slowed_by);
  take(json, "ecc_errors", r.state.ecc_errors);
  json.at("lost").get_to(r.state.lost);
  return r;
}

void find_gpus(const std::vector<RankReport>& reports, std::vector<Finding>& findings) {
  std::set<std::string> nodes;
  std::string why;
  for (const RankReport& report : reports) {
    if (!report.gpu) continue;
    find_trouble(report, findings);
    if (report.gpu->no_sensors.empty()) continue;
    nodes.insert(report.node);
    why = report.gpu->no_sensors;
  }
  find_full_gpus(reports, findings);
  if (!nodes.empty())
    findings.push_back(
        {fmt::format("nothing is known of clocks, heat and memory errors of the GPUs of {}: {}",
                     fmt::join(nodes, ", "), why),
         {},
         false});
}

std::string gpu_table(const std::vector<RankReport>& reports) {
  std::string table;
  for (const RankReport& r : reports) {
    if (!r.gpu) continue;
    if (table.empty())
      table = fmt::format(
          "{:>5} {:<16} {:>3} {:<26} {:<13} {:>4} {:>6} {:>7} {:>7} {:>4} {:>5} {:>5} {:>4} {:>8}\n", "rank",
          "node", "GPU", "name", "PCI address", "NUMA", "cores'", "SM MHz", "mem MHz", "C", "W", "cap W",
          "ECC", "free GiB");
    const std::string nodes = fmt::format("{}", fmt::join(r.gpu->core_nodes, ","));
    const GpuState& state = r.gpu->state;
    table += fmt::format(
        "{:>5} {:<16} {:>3} {:<26} {:<13} {:>4} {:>6} {:>7} {:>7} {:>4} {:>5} {:>5} {:>4} {:>8.1f}\n", r.rank,
        r.node, r.gpu->index, r.gpu->name, r.gpu->pci_address, number_or_dash(r.gpu->numa_node),
        nodes.empty() ? "-" : nodes, number_or_dash(state.sm_mhz), number_or_dash(state.memory_mhz),
        number_or_dash(state.temperature_c), number_or_dash(state.power_w),
        number_or_dash(state.power_limit_w), number_or_dash(state.ecc_errors), gib(r.gpu->memory_free));
  }
  return table;
}

std::string gpu_lines(const std::vector<RankReport>& reports) {
  std::vector<std::pair<std::string, std::string>> lines;  // node and GPU, ranks
  for (const RankReport& r : reports) {
    if (!r.gpu) continue;
    const std::string head = fmt::format("  {} ({}):", r.node, r.gpu->name);
    auto line =
        std::find_if(lines.begin(), lines.end(), [&](const auto& known) { return known.first == head; });
    if (line == lines.end()) line = lines.insert(lines.end(), {head, ""});
    line->second += fmt::format(" {}:{}", r.rank, r.gpu->index);
    if (r.gpu->numa_node) line->second += fmt::format("@{}", *r.gpu->numa_node);
    if (is_far(*r.gpu)) line->second += fmt::format("(!{})", fmt::join(r.gpu->core_nodes, ","));
  }
  std::string text;
  for (const auto& [head, ranks] : lines) text += "\n" + head + ranks;
  return text;
}

}  // namespace red::launch

// Which cores and which PCI devices belong together: NUMA nodes, as Linux tells of them under /sys.
// RED_SYSFS names another folder in its place.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace red {

/// Cores of each NUMA node; empty where the system does not tell.
using NumaCores = std::map<int, std::vector<int>>;
NumaCores numa_cores();

/// The node of a PCI device ("0000:19:00.0"); nothing where the system does not tell, as on a machine with
/// one.
std::optional<int> numa_node_of_pci(const std::string& address);

/// The nodes that these cores belong to.
std::set<int> numa_nodes_of(const std::vector<int>& cores, const NumaCores& numa);

/// {0, 1, 2, 3, 8} of "0-3,8\n". Empty where it is no such list.
std::vector<int> parse_cpu_list(std::string_view text);
/// The other way, without the line break.
std::string cpu_list_text(const std::vector<int>& cores);

/// Cores that this process may run on, in order.
std::vector<int> own_cores();
/// Throws IoError.
void bind_to_cores(const std::vector<int>& cores);

/// The share of a rank in its cores, each of which is divided by the ranks of the host that may run on it;
/// rounded down, 1 at least. `here`: the cores of every rank of the host, its own among them.
int share_of_cores(const std::vector<int>& own, const std::vector<std::vector<int>>& here);

/// What a process near a GPU of this node should bind itself to: the node's cores, where nobody has bound it
/// (it may run on all `num_cores_of_host`) and that is fewer. Empty: nothing.
std::vector<int> cores_to_bind_to(const std::vector<int>& own, int num_cores_of_host,
                                  std::optional<int> gpu_node, const NumaCores& numa);

}  // namespace red

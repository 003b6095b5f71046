#include "launch/free_memory.hpp"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace red::launch {
namespace {

namespace fs = std::filesystem;

/// The number behind this word; 0 where there is none.
uint64_t number_after(const fs::path& path, const std::string& word) {
  std::ifstream in(path);
  uint64_t number = 0;
  for (std::string read; in >> read;) {
    if (read == word && in >> number) return number;
  }
  return 0;
}

/// Files of a cgroup, by the version of its hierarchy.
struct GroupFiles {
  const char* limit;
  const char* used;
  const char* cache;  ///< key of memory.stat: of what is used, files that nobody has touched for a while
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

uint64_t free_in(const fs::path& group, const GroupFiles& files) {
  uint64_t limit = 0, used = 0;
  if (!(std::ifstream(group / files.limit) >> limit) || !(std::ifstream(group / files.used) >> used))
    return std::numeric_limits<uint64_t>::max();  // "max", or the hierarchy's root
  used -= std::min(used, number_after(group / "memory.stat", files.cache));
  return limit > used ? limit - used : 0;
}

/// The least of `group` and those around it. In a container the hierarchy may begin below the group's path.
uint64_t least_free(const fs::path& hierarchy, const std::string& group, const GroupFiles& files) {
  fs::path path = fs::path(group).relative_path();
  uint64_t least = free_in(hierarchy / path, files);
  while (!path.empty()) {
    path = path.parent_path();
    least = std::min(least, free_in(hierarchy / path, files));
  }
  return least;
}

}  // namespace

uint64_t free_memory(const fs::path& root) {
  uint64_t free = number_after(root / "proc/meminfo", "MemAvailable:") << 10;
  const fs::path mounted = root / "sys/fs/cgroup";
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {  // number:controllers:path
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") free = std::min(free, least_free(mounted, group, kVersion2));
    if (controllers.find(",memory,") != std::string::npos)
      free = std::min(free, least_free(mounted / "memory", group, kVersion1));
  }
  return free;
}

}  // namespace red::launch

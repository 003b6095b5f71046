// Memory that this process may still take.
#pragma once

#include <cstdint>
#include <filesystem>

namespace red::launch {

/// Bytes that the host has free, or the least that the process's cgroup and those around it leave: schedulers
/// limit a job or a step, above the cgroup that a rank is in. What is there only to spare a disk counts as
/// free. `root` is where /proc and /sys are looked for; 0 where nothing is known.
uint64_t free_memory(const std::filesystem::path& root = "/");

}  // namespace red::launch

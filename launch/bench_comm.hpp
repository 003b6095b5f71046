// redllm bench comm: collectives and messages along the axes of a layout, by size.
#pragma once

#include <span>
#include <string>

namespace red::launch {

int bench_comm(std::span<const std::string> args);

}  // namespace red::launch

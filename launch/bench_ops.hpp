// redllm bench ops: single ops of a step, each beside what bounds it.
#pragma once

#include <span>
#include <string>

namespace red::launch {

int bench_ops(std::span<const std::string> args);

}  // namespace red::launch

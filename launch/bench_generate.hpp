// redllm bench generate: the speed of prompts and of new tokens (docs/generation.md).
#pragma once

#include <span>
#include <string>

namespace red::launch {

int bench_generate(std::span<const std::string> args);

}  // namespace red::launch

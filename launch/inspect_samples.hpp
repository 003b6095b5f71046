// redllm inspect samples: which samples a step of a run has.
#pragma once

#include <span>
#include <string>

namespace red::launch {

int inspect_samples(std::span<const std::string> args);

}  // namespace red::launch

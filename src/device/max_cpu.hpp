// RED_MAX_CPU: computes as a lesser processor would, so that machines of several kinds round alike, and one
// machine can be measured and tested as another.
#pragma once

#include <string>

namespace red::detail {

enum class MaxCpu { avx2, avx512, all };

/// What RED_MAX_CPU allows; unset: all that the processor has. The first call tells Highway, and OpenBLAS and
/// oneDNN by variables of theirs that are not set yet, so it comes before any of them is used. Throws
/// ConfigError for another value.
MaxCpu max_cpu();

/// ", at most avx2 (RED_MAX_CPU)" behind a processor's name; empty where nothing is held back.
std::string max_cpu_text();

}  // namespace red::detail

// Which checks are linked.
#pragma once

#include <string_view>

namespace cuda_on_cpu {

/// "plain", "asan" (AddressSanitizer and UndefinedBehaviorSanitizer) or "race".
std::string_view flavour();

}  // namespace cuda_on_cpu

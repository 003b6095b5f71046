// The end of a program whose kernels or calls are wrong. Nothing goes on after a mistake: what it computed
// would only hide it.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace cuda_on_cpu {

/// One line "cuda_on_cpu: ..." on stderr, then abort.
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  std::fprintf(stderr, "cuda_on_cpu: %s\n", text.c_str());
  std::abort();
}

}  // namespace cuda_on_cpu

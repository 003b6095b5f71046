// RED_CHECK: an invariant of ours. A violation is a LogicError with the expression, its place and the
// operands.
#pragma once

#include "base/error.hpp"

namespace red::detail {

[[noreturn]] void check_failed(const char* expression, const char* file, int line,
                               const std::string& operands);

}  // namespace red::detail

/// RED_CHECK(a == b, "a {} b {}", a, b): always on, in release builds too; not for inner loops.
#define RED_CHECK(condition, ...)                                                               \
  do {                                                                                          \
    if (!(condition)) [[unlikely]]                                                              \
      ::red::detail::check_failed(#condition, __FILE__, __LINE__, fmt::format("" __VA_ARGS__)); \
  } while (false)

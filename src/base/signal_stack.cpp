#include "base/signal_stack.hpp"

#include <csignal>
#include <cstddef>

namespace red {

void use_signal_stack() {
  stack_t now = {};
  if (sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_DISABLE) == 0) return;
  static std::byte stack[std::size_t{128} << 10];  // a frame with AVX-512 and AMX, and an unwinder on top
  stack_t other = {};
  other.ss_sp = stack;
  other.ss_size = sizeof(stack);
  sigaltstack(&other, nullptr);
}

}  // namespace red

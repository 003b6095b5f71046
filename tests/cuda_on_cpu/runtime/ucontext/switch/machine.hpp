// Switch of stacks by the C library: on any processor, several times slower.
#pragma once

#include <ucontext.h>

#include <cstddef>

#include "runtime/fiber.hpp"

namespace cuda_on_cpu {

struct Fiber::Machine {
  ucontext_t context{};

  void prepare(std::byte* stack, std::size_t num_bytes, void (*start)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = num_bytes;
    context.uc_link = nullptr;
    makecontext(&context, start, 0);
  }
  void switch_from(Machine& from) { swapcontext(&from.context, &context); }
};

}  // namespace cuda_on_cpu

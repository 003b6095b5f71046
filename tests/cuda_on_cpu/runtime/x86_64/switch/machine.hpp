// Switch of stacks on x86-64: the registers that a callee keeps go to the old stack and come from the new
// one. The modes of the floating point unit stay, since all fibers share them.
#pragma once

#include <cstddef>

#include "runtime/fiber.hpp"

extern "C" void cuda_on_cpu_switch(void** old_stack_pointer, void* new_stack_pointer);

namespace cuda_on_cpu {

struct Fiber::Machine {
  void* stack_pointer = nullptr;

  void prepare(std::byte* stack, std::size_t num_bytes, void (*start)()) {
    auto** top = reinterpret_cast<void**>(stack + num_bytes) - 1;
    *top = nullptr;  // in place of a return address: aligns the stack as a call would
    *--top = reinterpret_cast<void*>(start);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    stack_pointer = top;
  }
  void switch_from(Machine& from) const { cuda_on_cpu_switch(&from.stack_pointer, stack_pointer); }
};

}  // namespace cuda_on_cpu

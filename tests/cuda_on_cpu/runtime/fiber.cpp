#include "runtime/fiber.hpp"

#include <sys/mman.h>

#include "runtime/failure.hpp"
#include "runtime/fiber_machine.hpp"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_cpu {
namespace {

constexpr std::size_t kGuardBytes = 4096;

// AddressSanitizer must know which stack is the running one.
void announce_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* bottom,
                     [[maybe_unused]] std::size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
#endif
}

void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** old_bottom,
                   [[maybe_unused]] std::size_t* old_size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_size);
#endif
}

/// Who switched last: a fiber that begins learns from it which stack it came from.
Fiber* last_from = nullptr;
Fiber* last_to = nullptr;

}  // namespace

/// The first frame of a fiber.
struct FiberStart {
  static void run() {
    finish_switch(nullptr, &last_from->bottom_, &last_from->size_);
    last_to->entry_();
    fail("a fiber's entry returned");
  }
};

Fiber::Fiber() : machine_(std::make_unique<Machine>()) {}

Fiber::Fiber(void (*entry)()) : entry_(entry), machine_(std::make_unique<Machine>()), size_(kStackBytes) {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) fail("no memory for another stack; are there too many threads in a block?");
  mprotect(memory, kGuardBytes, PROT_NONE);  // a stack that overflows faults at once
  stack_ = static_cast<std::byte*>(memory) + kGuardBytes;
  bottom_ = stack_;
  machine_->prepare(stack_, kStackBytes, &FiberStart::run);
}

Fiber::~Fiber() {
  if (stack_ != nullptr) munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes);
}

void Fiber::switch_from(Fiber& from) {
  last_from = &from;
  last_to = this;
  announce_switch(&from.fake_stack_, bottom_, size_);
  machine_->switch_from(*from.machine_);
  finish_switch(from.fake_stack_, nullptr, nullptr);
}

}  // namespace cuda_on_cpu

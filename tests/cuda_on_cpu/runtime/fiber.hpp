// Fibers: stacks of their own that hand the CPU to each other by a call. One .cpp per way to switch stacks: a
// few instructions on x86-64, the C library's ucontext elsewhere.
#pragma once

#include <cstddef>
#include <memory>

namespace cuda_on_cpu {

class Fiber {
 public:
  /// The stack that the caller is on.
  Fiber();
  /// Calls entry() when it is first switched to; entry must not return.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Goes on where `this` stopped; returns when somebody switches back to `from`, which is the running one.
  void switch_from(Fiber& from);

  /// Where the fiber's own stack begins; null for a thread's.
  const std::byte* stack() const { return stack_; }

  /// What the switch itself needs; one type for each way.
  struct Machine;

  static constexpr std::size_t kStackBytes = std::size_t{256} << 10;

 private:
  friend struct FiberStart;

  void (*entry_)() = nullptr;
  std::byte* stack_ = nullptr;  ///< kStackBytes; null for a thread's own
  std::unique_ptr<Machine> machine_;
  // Of AddressSanitizer.
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace cuda_on_cpu

// Atomic functions: blocks and fibers share one CPU, so a plain update is atomic. The race checker is told of
// them.
#pragma once

#include <cstddef>
#include <type_traits>

#ifdef __SANITIZE_THREAD__
#define CUDA_ON_CPU_UNCHECKED __attribute__((no_sanitize("thread"), noinline))
#else
#define CUDA_ON_CPU_UNCHECKED
#endif

namespace cuda_on_cpu {

/// Does nothing unless the race checker is linked.
void race_atomic(const void* address, std::size_t num_bytes);

/// The value before `update`.
template <class T, class Update>
CUDA_ON_CPU_UNCHECKED T read_modify_write(T* address, const Update& update) {
  race_atomic(address, sizeof(T));
  const T old = *address;
  *address = update(old);
  return old;
}

}  // namespace cuda_on_cpu

template <class T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [=](T old) { return old > value ? old : value; });
}
template <class T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [=](T old) { return old < value ? old : value; });
}
template <class T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [=](T old) { return old | value; });
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return cuda_on_cpu::read_modify_write(address, [=](T old) { return old == expected ? value : old; });
}

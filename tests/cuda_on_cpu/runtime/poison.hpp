// Memory that kernels may not touch, where AddressSanitizer is on; nothing elsewhere.
#pragma once

#include <cstddef>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace cuda_on_cpu {

inline void poison([[maybe_unused]] const void* begin, [[maybe_unused]] std::size_t num_bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(begin, num_bytes);
#endif
}

inline void unpoison([[maybe_unused]] const void* begin, [[maybe_unused]] std::size_t num_bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(begin, num_bytes);
#endif
}

}  // namespace cuda_on_cpu

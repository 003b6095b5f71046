// What the scheduler tells the race checker. race_none.cpp does nothing; race_checker.cpp is linked with
// kernels that are compiled with -fsanitize=thread.
#pragma once

#include <cstddef>

#include "shim/atomics.hpp"

namespace cuda_on_cpu {

void race_begin_launch();
void race_begin_block(const void* shared, std::size_t num_bytes);
void race_block_barrier();
void race_warp_barrier(unsigned warp, unsigned mask);

}  // namespace cuda_on_cpu

#pragma once

#include <cstdint>

namespace cuda_on_cpu {

/// How many messages to or from device memory MPI was given so far in this process.
int64_t device_messages();

}  // namespace cuda_on_cpu

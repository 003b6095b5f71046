// Private to the fakes: what the runtime keeps between calls.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace cuda_on_cpu {

/// The error itself, remembered for cudaGetLastError unless it is success.
cudaError_t remember(cudaError_t error);

/// Whether a kernel may have so much dynamic shared memory: 48 KiB, or what cudaFuncSetAttribute allowed it.
bool shared_bytes_allowed(const void* kernel, std::size_t num_bytes);

}  // namespace cuda_on_cpu

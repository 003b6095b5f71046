// Private to the CUDA backend: every call into cuBLASLt is checked.
#pragma once

#include <cublasLt.h>

namespace red::detail {

/// Throws LogicError: the call, its place, cuBLASLt's name of the status and what it means.
[[noreturn]] void cublaslt_failed(cublasStatus_t status, const char* call, const char* file, int line);

}  // namespace red::detail

#define RED_CUBLASLT_CHECK(call)                                             \
  do {                                                                       \
    const cublasStatus_t red_status = (call);                                \
    if (red_status != CUBLAS_STATUS_SUCCESS) [[unlikely]]                    \
      ::red::detail::cublaslt_failed(red_status, #call, __FILE__, __LINE__); \
  } while (false)

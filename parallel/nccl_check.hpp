// RED_NCCL: the one way to call NCCL. Its communicators are non-blocking, so ncclInProgress is an answer like
// ncclSuccess; anything else becomes a CommunicationError with the call, its place and NCCL's own words.
#pragma once

#include <nccl.h>

#include <string>

namespace red::parallel::detail {

static_assert(NCCL_VERSION_CODE >= NCCL_VERSION(2, 18, 1), "NCCL 2.18 or newer is needed");

/// "remote process exited or there was a network error (ncclRemoteError), ...": NCCL's text, and what it last
/// said. comm may be null.
std::string nccl_text(ncclResult_t result, ncclComm_t comm);

[[noreturn]] void nccl_failed(ncclResult_t result, ncclComm_t comm, const char* call, const char* file,
                              int line);

/// Throws unless `result` is success or progress. True when nothing is left in progress.
inline bool nccl_settled(ncclResult_t result, ncclComm_t comm, const char* call, const char* file, int line) {
  if (result != ncclSuccess && result != ncclInProgress) [[unlikely]]
    nccl_failed(result, comm, call, file, line);
  return result == ncclSuccess;
}

}  // namespace red::parallel::detail

/// bool settled = RED_NCCL(comm, ncclAllReduce(...));
#define RED_NCCL(comm, call) ::red::parallel::detail::nccl_settled((call), (comm), #call, __FILE__, __LINE__)

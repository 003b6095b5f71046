#include "parallel/nccl_check.hpp"

#include "base/error.hpp"

namespace red::parallel::detail {

std::string nccl_text(ncclResult_t result, ncclComm_t comm) {
  std::string text = ncclGetErrorString(result);
  const char* last = ncclGetLastError(comm);
  if (last != nullptr && *last != '\0') text += fmt::format("; NCCL's last words: {}", last);
  return text;
}

void nccl_failed(ncclResult_t result, ncclComm_t comm, const char* call, const char* file, int line) {
  throw CommunicationError("{}:{}: {} failed: {} (NCCL_DEBUG=INFO tells more)", file, line, call,
                           nccl_text(result, comm));
}

}  // namespace red::parallel::detail

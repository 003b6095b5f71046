#include "parallel/nccl_operation.hpp"

#include "parallel/nccl_context.hpp"

namespace red::parallel {

std::string_view name_of(NcclKind kind) {
  switch (kind) {
    case NcclKind::all_reduce:
      return "all-reduce";
    case NcclKind::reduce_scatter:
      return "reduce-scatter";
    case NcclKind::all_gather:
      return "all-gather";
    case NcclKind::broadcast:
      return "broadcast";
    case NcclKind::send:
      return "send";
    case NcclKind::receive:
      return "receive";
  }
  return "?";
}

void NcclOperation::prepare(const NcclCall& call, NcclLink& link, cudaStream_t compute) {
  call_ = call;
  link_ = &link;
  issued_ = launched_ = was_waited_ = false;
  what_ = name_of(call.kind);
  begin_.record(compute);
}

void NcclOperation::launched(cudaStream_t stream) {
  end_.record(stream);
  launched_ = true;
}

void NcclOperation::give_back() noexcept {
  context_.give_back(*this);
}

}  // namespace red::parallel

// One operation under way over NCCL: what is called, and the two events that order it against the compute
// stream.
#pragma once

#include <string_view>

#include "device/cuda_stream.hpp"
#include "parallel/request_impl.hpp"

namespace red::parallel {

class NcclContext;
class NcclLink;

enum class NcclKind { all_reduce, reduce_scatter, all_gather, broadcast, send, receive };
std::string_view name_of(NcclKind kind);  ///< "all-reduce"

/// Arguments of a call of NCCL; `source` and `target` are device memory, null where the call has none.
struct NcclCall {
  NcclKind kind = NcclKind::all_reduce;
  const std::byte* source = nullptr;
  std::byte* target = nullptr;
  int64_t count = 0;  ///< elements, as NCCL counts them: of one row for reduce-scatter and all-gather
  DType dtype = DType::fp32;
  ReduceOp op = ReduceOp::sum;
  int peer = 0;  ///< root of a broadcast, the other rank of a message
};

class NcclOperation final : public Request::Impl {
 public:
  explicit NcclOperation(NcclContext& context) : context_(context) {}

  /// It begins after the work that `compute` has been given.
  void prepare(const NcclCall& call, NcclLink& link, cudaStream_t compute);
  const NcclCall& call() const { return call_; }
  NcclLink& link() const { return *link_; }

  /// NCCL was called, and may be connecting ranks yet.
  bool is_issued() const { return issued_; }
  void issued() { issued_ = true; }
  /// It is in the link's stream: its end has an event.
  bool is_launched() const { return launched_; }
  void launched(cudaStream_t stream);
  bool is_over() const { return launched_ && end_.reached(); }

  const red::detail::CudaEvent& begin() const { return begin_; }
  const red::detail::CudaEvent& end() const { return end_; }

  /// Waited for as `what`: the compute stream waits, the host does not.
  void waited(std::string_view what) {
    was_waited_ = true;
    what_ = what;
  }
  bool was_waited() const { return was_waited_; }
  std::string_view what() const { return what_; }

  void give_back() noexcept override;

 private:
  NcclContext& context_;
  NcclLink* link_ = nullptr;
  NcclCall call_;
  red::detail::CudaEvent begin_, end_;
  bool issued_ = false, launched_ = false, was_waited_ = false;
  std::string_view what_;
};

}  // namespace red::parallel

#include "parallel/nccl_link.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/check.hpp"
#include "device/cuda_check.hpp"
#include "parallel/nccl_context.hpp"

namespace red::parallel {
namespace {

// Of the GPU, for a message: few, because several messages may wait for other ranks at once, and whatever
// waits has its blocks to itself.
constexpr int kMessageBlocks = 4;
// Longer only when ranks are being connected.
constexpr std::chrono::milliseconds kLaunchTime(1);
constexpr std::string_view kEnd = "the end of a communicator of NCCL";

// Otherwise NCCL, from 2.22 on, connects ranks for an algorithm when it first chooses it, and takes memory
// then: in the middle of a step. Before main, as what CUDA reads (device/cuda_device.cpp); unless the user
// has set it.
[[maybe_unused]] const bool kEnvironmentIsSet =
    setenv("NCCL_RUNTIME_CONNECT", "0", 0) == 0;  // NOLINT(concurrency-mt-unsafe): no thread was started

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return ncclFloat32;
    case DType::fp64:
      return ncclFloat64;
    case DType::int32:
      return ncclInt32;
    case DType::uint8:
      return ncclUint8;
    case DType::bf16:
      return ncclBfloat16;
  }
  throw LogicError("no such type");
}

ncclRedOp_t nccl_op(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return ncclSum;
    case ReduceOp::max:
      return ncclMax;
    case ReduceOp::min:
      return ncclMin;
  }
  throw LogicError("no such reduction");
}

template <class Done>
bool within(std::chrono::milliseconds time, const Done& done) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    sched_yield();
  }
  return true;
}

}  // namespace

NcclId new_nccl_id() {
  ncclUniqueId unique;
  RED_NCCL(nullptr, ncclGetUniqueId(&unique));
  NcclId id;
  std::memcpy(id.data(), unique.internal, id.size());
  return id;
}

NcclLink::NcclLink(NcclContext& context, std::string name) : context_(context), name_(std::move(name)) {
  context_.enroll(*this);
}

NcclLink::~NcclLink() {
  context_.leave(*this);
  if (comm_ == nullptr || red::detail::leaves_by_exception()) return;
  begin_to_end();
  context_.in_order([this] {
    context_.hold_until([this] { return settled(); }, kEnd, name_);
    RED_NCCL(nullptr, ncclCommDestroy(std::exchange(comm_, nullptr)));
  });
}

void NcclLink::connect(const NcclId& id, int size, int rank, int max_blocks) {
  RED_CHECK(comm_ == nullptr, "{} is connected", name_);
  ncclUniqueId unique;
  std::memcpy(unique.internal, id.data(), id.size());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  if (max_blocks != 0) config.maxCTAs = max_blocks;
  settled_ = RED_NCCL(comm_, ncclCommInitRankConfig(&comm_, size, unique, rank, &config));
}

bool NcclLink::settled() {
  if (comm_ == nullptr) return false;
  if (!settled_) settled_ = look_for_error();
  return settled_;
}

void NcclLink::issue(NcclOperation& operation) {
  const NcclCall& c = operation.call();
  const cudaStream_t stream = stream_.get();
  const auto count = static_cast<std::size_t>(c.count);
  const ncclDataType_t type = nccl_type(c.dtype);
  operation.begin().hold(stream);
  operation.issued();
  switch (c.kind) {
    case NcclKind::all_reduce:
      settled_ =
          RED_NCCL(comm_, ncclAllReduce(c.source, c.target, count, type, nccl_op(c.op), comm_, stream));
      return;
    case NcclKind::reduce_scatter:
      settled_ =
          RED_NCCL(comm_, ncclReduceScatter(c.source, c.target, count, type, nccl_op(c.op), comm_, stream));
      return;
    case NcclKind::all_gather:
      settled_ = RED_NCCL(comm_, ncclAllGather(c.source, c.target, count, type, comm_, stream));
      return;
    case NcclKind::broadcast:
      settled_ = RED_NCCL(comm_, ncclBroadcast(c.source, c.target, count, type, c.peer, comm_, stream));
      return;
    case NcclKind::send:
      settled_ = RED_NCCL(comm_, ncclSend(c.source, count, type, c.peer, comm_, stream));
      return;
    case NcclKind::receive:
      settled_ = RED_NCCL(comm_, ncclRecv(c.target, count, type, c.peer, comm_, stream));
      return;
  }
}

void NcclLink::advance() {
  while (!queue_.empty()) {
    NcclOperation& operation = *queue_.front();
    if (!settled()) return;
    if (!operation.is_issued()) {
      issue(operation);
      // A thread of NCCL's launches it, in some microseconds, or when ranks that were not are connected.
      within(kLaunchTime, [this] { return settled(); });
    }
    if (!settled()) return;
    operation.launched(stream_.get());
    queue_.erase(queue_.begin());
  }
}

bool NcclLink::look_for_error() {
  if (comm_ == nullptr) return false;
  ncclResult_t state = ncclSuccess;
  RED_NCCL(comm_, ncclCommGetAsyncError(comm_, &state));
  if (state != ncclSuccess && state != ncclInProgress) {
    const std::string what =
        fmt::format("NCCL lost a rank or a connection of communicator {}: {} (NCCL_DEBUG=INFO tells more)",
                    name_, detail::nccl_text(state, comm_));
    red::detail::throw_if_gpu_lost(what);
    throw CommunicationError("{}", what);
  }
  return state == ncclSuccess;
}

void NcclLink::begin_to_end() noexcept {
  if (comm_ == nullptr || ending_ || red::detail::leaves_by_exception()) return;
  ending_ = true;
  context_.in_order([this] {
    context_.hold_until([this] { return settled() && stream_.idle(); }, kEnd, name_);
    settled_ = RED_NCCL(comm_, ncclCommFinalize(comm_));
  });
}

NcclChannel::NcclChannel(NcclContext& context, std::string name, Communicator& host, int peer, int tag,
                         bool sends)
    : NcclLink(context, std::move(name)), host_(host), sends_(sends) {
  const Tensor id = make_tensor(id_.data(), 1, static_cast<int64_t>(id_.size()));
  if (sends_) {
    id_ = new_nccl_id();
    id_under_way_ = host_.send(id, peer, tag);
    connect(id_, 2, 0, kMessageBlocks);
  } else {
    id_under_way_ = host_.receive(id, peer, tag);
  }
}

NcclChannel::~NcclChannel() {
  context_.leave(*this);  // nobody asks a channel that is half gone
  if (!id_under_way_ || red::detail::leaves_by_exception()) return;
  context_.in_order([this] { host_.wait(id_under_way_, "a new channel's id"); });
}

void NcclChannel::advance() {
  if (id_under_way_ && host_.test(id_under_way_)) {
    id_under_way_ = Request();  // a wait in the midst of another one would take away that one's name
    if (!sends_) connect(id_, 2, 1, kMessageBlocks);
  }
  NcclLink::advance();
}

}  // namespace red::parallel

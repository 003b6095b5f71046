#include "parallel/nccl_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "parallel/tensor_rows.hpp"

namespace red::parallel {
namespace {

// Of the host's messages that carry the ids of channels: above every tag of theirs.
constexpr int kIdTag = 16384;

}  // namespace

std::string nccl_version() {
  int version = 0;
  RED_NCCL(nullptr, ncclGetVersion(&version));
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

NcclCommunicator::NcclCommunicator(Communicator& host, std::shared_ptr<MpiContext> mpi, Stream& stream,
                                   const NcclOptions& options)
    : host_(host), context_(std::make_shared<NcclContext>(std::move(mpi), stream)), options_(options) {
  connect();
}

NcclCommunicator::NcclCommunicator(std::shared_ptr<NcclContext> context, std::unique_ptr<Communicator> host,
                                   const NcclOptions& options)
    : owned_(std::move(host)), host_(*owned_), context_(std::move(context)), options_(options) {
  connect();
}

NcclCommunicator::~NcclCommunicator() {
  for (const auto& [place, channel] : channels_) channel->begin_to_end();
  if (link_ != nullptr) link_->begin_to_end();
}

/// A communicator of NCCL's own for every part, and not one split off another: nothing is shared then, so
/// that the one can be waited for, ordered and aborted without the other.
void NcclCommunicator::connect() {
  if (size() == 1) return;
  NcclId id{};
  if (rank() == 0) id = new_nccl_id();
  Request request = host_.broadcast(make_tensor(id.data(), 1, static_cast<int64_t>(id.size())), 0);
  host_.wait(request, "the id of a communicator of NCCL");
  link_ = std::make_unique<NcclLink>(*context_, std::string(name()));
  link_->connect(id, size(), rank());
  context_->hold_until([this] { return link_->settled(); }, "the connections of NCCL", name());
}

Request NcclCommunicator::collective(const NcclCall& call) {
  if (options_.check_order) check_order(call);
  if (call.count == 0) return {};
  NcclOperation& operation = context_->start(call, *link_);
  Request request(&operation);
  if (!options_.overlap) context_->hold_stream(operation, name_of(call.kind));
  return request;
}

Request NcclCommunicator::all_reduce(const Tensor& x, ReduceOp op) {
  if (!on_device(x.data)) return host_.all_reduce(x, op);
  check_contiguous(x);
  if (size() == 1) return {};
  return collective({NcclKind::all_reduce, x.data, x.data, x.size(), x.dtype, op, 0});
}

Request NcclCommunicator::reduce_scatter(const Tensor& receive, const Tensor& send) {
  if (!on_device(send.data)) return host_.reduce_scatter(receive, send);
  const std::byte* row = check_rows(send, receive, size(), rank());
  if (size() == 1) {
    if (receive.data != row) copy_on_device(context_->stream(), receive.data, row, num_bytes(receive));
    return {};
  }
  return collective(
      {NcclKind::reduce_scatter, send.data, receive.data, receive.size(), send.dtype, ReduceOp::sum, 0});
}

Request NcclCommunicator::all_gather(const Tensor& receive, const Tensor& send) {
  if (!on_device(receive.data)) return host_.all_gather(receive, send);
  std::byte* row = check_rows(receive, send, size(), rank());
  if (size() == 1) {
    if (send.data != row) copy_on_device(context_->stream(), row, send.data, num_bytes(send));
    return {};
  }
  return collective(
      {NcclKind::all_gather, send.data, receive.data, send.size(), send.dtype, ReduceOp::sum, 0});
}

Request NcclCommunicator::broadcast(const Tensor& x, int root) {
  if (!on_device(x.data)) return host_.broadcast(x, root);
  check_contiguous(x);
  RED_CHECK(root >= 0 && root < size(), "root {} of {}", root, size());
  if (size() == 1) return {};
  return collective({NcclKind::broadcast, x.data, x.data, x.size(), x.dtype, ReduceOp::sum, root});
}

/// In a channel one rank sends and the other receives, so that its order is that of the tag's messages.
Request NcclCommunicator::message(const NcclCall& call, int tag) {
  check_peer(call.peer, rank(), size());
  RED_CHECK(tag >= 0 && tag < kIdTag, "tag {}", tag);
  if (call.count == 0) return {};
  const bool sends = call.kind == NcclKind::send;
  std::unique_ptr<NcclChannel>& channel = channels_[{call.peer, tag, sends}];
  if (channel == nullptr) {
    std::string text =
        fmt::format("{}, tag {} {} its rank {}", name(), tag, sends ? "to" : "from", call.peer);
    channel =
        std::make_unique<NcclChannel>(*context_, std::move(text), host_, call.peer, kIdTag + tag, sends);
  }
  NcclCall within = call;
  within.peer = sends ? 1 : 0;
  return Request(&context_->start(within, *channel));
}

Request NcclCommunicator::send(const Tensor& x, int destination, int tag) {
  if (!on_device(x.data)) return host_.send(x, destination, tag);
  check_contiguous(x);
  return message({NcclKind::send, x.data, nullptr, x.size(), x.dtype, ReduceOp::sum, destination}, tag);
}

Request NcclCommunicator::receive(const Tensor& x, int source, int tag) {
  if (!on_device(x.data)) return host_.receive(x, source, tag);
  check_contiguous(x);
  return message({NcclKind::receive, nullptr, x.data, x.size(), x.dtype, ReduceOp::sum, source}, tag);
}

/// Every rank's next collective, side by side: two that differ would hang, or mix their bytes.
void NcclCommunicator::check_order(const NcclCall& call) {
  if (size() == 1) return;
  struct Row {
    int64_t number, count;
    int32_t kind, dtype, op, root;
  };
  constexpr auto columns = static_cast<int64_t>(sizeof(Row));
  std::vector<Row> rows(static_cast<std::size_t>(size()));
  Row& own = rows[static_cast<std::size_t>(rank())];
  own = {num_collectives_++,
         call.count,
         static_cast<int32_t>(call.kind),
         static_cast<int32_t>(call.dtype),
         static_cast<int32_t>(call.op),
         call.peer};
  const Tensor all = make_tensor(reinterpret_cast<uint8_t*>(rows.data()), size(), columns);
  Request request = host_.all_gather(all, all.row_range(rank(), 1));
  host_.wait(request, "the check of the order of collectives");
  const auto text = [](const Row& row) {
    return fmt::format("{} of {} elements of {} (reduction {}, root {}) as number {}",
                       parallel::name_of(static_cast<NcclKind>(row.kind)), row.count,
                       red::name_of(static_cast<DType>(row.dtype)), row.op, row.root, row.number);
  };
  for (int r = 1; r < size(); ++r) {
    const std::string expected = text(rows[0]), got = text(rows[static_cast<std::size_t>(r)]);
    RED_CHECK(got == expected, "on communicator {} its rank 0 calls {}, and its rank {} {}", name(), expected,
              r, got);
  }
}

void NcclCommunicator::wait(Request& request, std::string_view what) {
  auto* operation = dynamic_cast<NcclOperation*>(request.get());
  if (operation == nullptr) return host_.wait(request, what);
  context_->wait(*operation, what);
  request = Request();
}

bool NcclCommunicator::test(Request& request) {
  auto* operation = dynamic_cast<NcclOperation*>(request.get());
  return operation == nullptr ? host_.test(request) : context_->test(*operation);
}

std::unique_ptr<Communicator> NcclCommunicator::split(int color, int key, std::string_view name) {
  return std::unique_ptr<Communicator>(
      new NcclCommunicator(context_, host_.split(color, key, name), options_));
}

}  // namespace red::parallel

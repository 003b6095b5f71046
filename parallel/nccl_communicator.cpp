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
  connect_all();
}

NcclCommunicator::NcclCommunicator(std::shared_ptr<NcclContext> context, std::unique_ptr<Communicator> host,
                                   const NcclOptions& options)
    : owned_(std::move(host)), host_(*owned_), context_(std::move(context)), options_(options) {
  connect_all();
}

NcclCommunicator::~NcclCommunicator() {
  for (const auto& [place, channel] : channels_) channel->begin_to_end();
  if (link_ != nullptr) link_->begin_to_end();
}

/// A communicator of NCCL's own for every part, and not one split off another: nothing is shared then, so
/// that the one can be waited for, ordered and aborted without the other.
void NcclCommunicator::connect_all() {
  if (size() == 1) return;
  NcclId id{};
  if (rank() == 0) id = new_nccl_id();
  Request request = host_.broadcast(make_tensor(id.data(), 1, static_cast<int64_t>(id.size())), 0);
  host_.wait(request, "the id of a communicator of NCCL");
  link_ = std::make_unique<NcclLink>(*context_, std::string(name()));
  link_->connect(id, size(), rank());
  context_->connect(NcclKind::all_reduce, 0, *link_);
}

Request NcclCommunicator::collective(const NcclCall& call) {
  if (call.count == 0) return {};
  NcclOperation& operation = context_->start(call, *link_);
  Request request(&operation);
  if (options_.overlap) return request;
  context_->wait(operation, name_of(call.kind));
  return {};
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

std::unique_ptr<NcclChannel> NcclCommunicator::new_channel(int peer, int tag, bool sends) {
  std::string text = fmt::format("{}, tag {} {} its rank {}", name(), tag, sends ? "to" : "from", peer);
  return std::make_unique<NcclChannel>(*context_, std::move(text), host_, peer, kIdTag + tag, sends);
}

/// One after another, each until a message has come through. No circle of ranks waits for each other: of all
/// routes that are not connected the first in the common order is the next one at both its ends. Pairs with
/// an even lower rank come first, so that neighbours all along a pipeline connect at the same time.
void NcclCommunicator::connect(std::span<const Route> routes) {
  std::vector<Route> ordered(routes.begin(), routes.end());
  const auto place = [](const Route& r) {
    const auto [low, high] = std::minmax(r.source, r.destination);
    return std::tuple(low % 2, low, high, r.source, r.tag);
  };
  std::sort(ordered.begin(), ordered.end(),
            [&](const Route& a, const Route& b) { return place(a) < place(b); });
  has_routes_ = true;
  for (const auto& [source, destination, tag] : ordered) {
    const bool sends = source == rank();
    if (!sends && destination != rank()) continue;
    const int peer = sends ? destination : source;
    check_peer(peer, rank(), size());
    const std::tuple key(peer, tag, sends);
    if (channels_.contains(key)) continue;
    NcclChannel& channel = *channels_.emplace(key, new_channel(peer, tag, sends)).first->second;
    context_->connect(sends ? NcclKind::send : NcclKind::receive, sends ? 1 : 0, channel);
  }
}

/// In a channel one rank sends and the other receives, so that its order is that of the tag's messages.
Request NcclCommunicator::message(const NcclCall& call, int tag) {
  check_peer(call.peer, rank(), size());
  RED_CHECK(tag >= 0 && tag < kIdTag, "tag {}", tag);
  if (call.count == 0) return {};
  const bool sends = call.kind == NcclKind::send;
  auto found = channels_.find({call.peer, tag, sends});
  if (found == channels_.end()) {
    RED_CHECK(
        !has_routes_,
        "on communicator {} no connection was made for messages of tag {} from its rank {} to its rank {}",
        name(), tag, sends ? rank() : call.peer, sends ? call.peer : rank());
    found = channels_.emplace(std::tuple(call.peer, tag, sends), new_channel(call.peer, tag, sends)).first;
  }
  NcclCall within = call;
  within.peer = sends ? 1 : 0;
  return Request(&context_->start(within, *found->second));
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

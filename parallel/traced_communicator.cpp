#include "parallel/traced_communicator.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace red::parallel {
namespace {

int64_t bytes_of(const Tensor& x) {
  return x.rows * x.cols * static_cast<int64_t>(size_of(x.dtype));
}

/// Who of all ranks the ranks of a part are.
std::vector<int> ranks_of(Communicator& part, int own_world_rank) {
  std::vector<int32_t> ranks(part.size());
  ranks[part.rank()] = own_world_rank;
  Request request =
      part.all_gather(make_tensor(ranks.data(), part.size(), 1), make_tensor(&ranks[part.rank()], 1, 1));
  part.wait(request, "members of a traced communicator");
  return {ranks.begin(), ranks.end()};
}

}  // namespace

TracedCommunicator::TracedCommunicator(Communicator& inner, TraceLog& log)
    : inner_(inner), log_(log), world_ranks_(inner.size()) {
  std::iota(world_ranks_.begin(), world_ranks_.end(), 0);
}

TracedCommunicator::TracedCommunicator(std::unique_ptr<Communicator> inner, TraceLog& log,
                                       std::vector<int> world_ranks)
    : owned_(std::move(inner)), inner_(*owned_), log_(log), world_ranks_(std::move(world_ranks)) {}

Request TracedCommunicator::collective(Request request, const char* name, const Tensor& x) {
  if (log_.on()) {
    const std::string peers = fmt::format("{} of {} ranks", inner_.name(), inner_.size());
    begun(request, {name, peers, bytes_of(x), {}, false, 0.0, 0.0});
  }
  return request;
}

/// Without a request nobody will say that it is done: it is.
void TracedCommunicator::begun(const Request& request, TraceTransfer transfer) {
  const int64_t number = log_.begin_transfer(std::move(transfer));
  if (!request) return log_.end_transfer(number);
  open_.push_back({request.get(), number});
}

Request TracedCommunicator::message(Request request, const Tensor& x, int peer, int tag, bool sends) {
  if (!log_.on()) return request;
  const int own = world_ranks_[inner_.rank()], other = world_ranks_[peer];
  const int64_t number = num_messages_[{peer, tag, sends}]++;
  std::string id = fmt::format("{} {}>{} tag {} number {}", inner_.name(), sends ? own : other,
                               sends ? other : own, tag, number);
  std::string peers = fmt::format("{} {} rank {}", inner_.name(), sends ? "to" : "from", other);
  begun(request, {sends ? "send" : "receive", std::move(peers), bytes_of(x), std::move(id), sends, 0.0, 0.0});
  return request;
}

Request TracedCommunicator::all_reduce(const Tensor& x, ReduceOp op) {
  return collective(inner_.all_reduce(x, op), "all-reduce", x);
}

Request TracedCommunicator::reduce_scatter(const Tensor& receive, const Tensor& send) {
  return collective(inner_.reduce_scatter(receive, send), "reduce-scatter", send);
}

Request TracedCommunicator::all_gather(const Tensor& receive, const Tensor& send) {
  return collective(inner_.all_gather(receive, send), "all-gather", receive);
}

Request TracedCommunicator::broadcast(const Tensor& x, int root) {
  return collective(inner_.broadcast(x, root), "broadcast", x);
}

Request TracedCommunicator::send(const Tensor& x, int destination, int tag) {
  return message(inner_.send(x, destination, tag), x, destination, tag, true);
}

Request TracedCommunicator::receive(const Tensor& x, int source, int tag) {
  return message(inner_.receive(x, source, tag), x, source, tag, false);
}

Request TracedCommunicator::barrier() {
  return collective(inner_.barrier(), "barrier", Tensor{});
}

void TracedCommunicator::done(const Request::Impl* impl) {
  const auto found = std::find_if(open_.begin(), open_.end(), [&](const Open& o) { return o.impl == impl; });
  if (found == open_.end()) return;
  log_.end_transfer(found->transfer);
  open_.erase(found);
}

void TracedCommunicator::wait(Request& request, std::string_view what) {
  const Request::Impl* impl = request.get();  // given back within
  const double begin = TraceLog::now();
  inner_.wait(request, what);
  if (impl != nullptr) done(impl);
  log_.slice("wait", std::string(what), begin, TraceLog::now());
}

bool TracedCommunicator::test(Request& request) {
  const Request::Impl* impl = request.get();
  const bool is_done = inner_.test(request);
  if (is_done && impl != nullptr) done(impl);
  return is_done;
}

std::unique_ptr<Communicator> TracedCommunicator::split(int color, int key, std::string_view name) {
  std::unique_ptr<Communicator> part = inner_.split(color, key, name);
  std::vector<int> ranks = ranks_of(*part, world_ranks_[inner_.rank()]);
  return std::unique_ptr<Communicator>(new TracedCommunicator(std::move(part), log_, std::move(ranks)));
}

}  // namespace red::parallel

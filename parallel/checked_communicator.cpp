#include "parallel/checked_communicator.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "parallel/message_tags.hpp"

namespace red::parallel {
namespace {

#ifdef NDEBUG
constexpr bool kDebugBuild = false;
#else
constexpr bool kDebugBuild = true;
#endif

// Of all ranks together, on rank 0, where comparing takes some times as much.
constexpr double kMostBytes = 128.0 * (1 << 20);
constexpr double kTooMany = kMostBytes + 1;
constexpr std::string_view kWhat = "the comparison of calls";

class Writer {
 public:
  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    put_bytes(&value, sizeof(T));
  }
  void put_bytes(const void* data, std::size_t size) {
    const auto* begin = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), begin, begin + size);
  }
  std::vector<uint8_t> bytes;
};

class Reader {
 public:
  explicit Reader(const std::vector<uint8_t>& bytes) : bytes_(bytes) {}
  template <class T>
  T take() {
    T value;
    take_bytes(&value, sizeof(T));
    return value;
  }
  void take_bytes(void* data, std::size_t size) {
    RED_CHECK(at_ + size <= bytes_.size(), "{} bytes of calls end early", bytes_.size());
    if (size != 0) std::memcpy(data, bytes_.data() + at_, size);
    at_ += size;
  }

 private:
  const std::vector<uint8_t>& bytes_;
  std::size_t at_ = 0;
};

std::vector<uint8_t> bytes_of(const CallLog& log) {
  Writer out;
  out.put(log.groups.size());
  for (const CallGroup& group : log.groups) {
    out.put(group.id);
    out.put(group.name.size());
    out.put_bytes(group.name.data(), group.name.size());
    out.put(group.ranks.size());
    out.put_bytes(group.ranks.data(), group.ranks.size() * sizeof(int32_t));
  }
  out.put(log.calls.size());
  out.put_bytes(log.calls.data(), log.calls.size() * sizeof(Call));
  return std::move(out.bytes);
}

CallLog log_of(const std::vector<uint8_t>& bytes) {
  Reader in(bytes);
  CallLog log;
  log.groups.resize(in.take<std::size_t>());
  for (CallGroup& group : log.groups) {
    group.id = in.take<int64_t>();
    group.name.resize(in.take<std::size_t>());
    in.take_bytes(group.name.data(), group.name.size());
    group.ranks.resize(in.take<std::size_t>());
    in.take_bytes(group.ranks.data(), group.ranks.size() * sizeof(int32_t));
  }
  log.calls.resize(in.take<std::size_t>());
  in.take_bytes(log.calls.data(), log.calls.size() * sizeof(Call));
  return log;
}

Tensor tensor_of(std::vector<uint8_t>& bytes) {
  return make_tensor(bytes.data(), 1, static_cast<int64_t>(bytes.size()));
}

void finish(Communicator& ranks, Request request) {
  ranks.wait(request, kWhat);
}

/// Rank 0's, everywhere.
std::string share(Communicator& ranks, const std::string& text) {
  auto size = static_cast<int32_t>(text.size());
  finish(ranks, ranks.broadcast(make_tensor(&size, 1, 1), 0));
  std::vector<uint8_t> bytes(text.begin(), text.end());
  bytes.resize(static_cast<std::size_t>(size));
  if (size != 0) finish(ranks, ranks.broadcast(tensor_of(bytes), 0));
  return {bytes.begin(), bytes.end()};
}

}  // namespace

struct CheckedCommunicator::Record {
  int32_t world_rank = 0, num_groups = 0;
  std::size_t most_calls = 0;
  CallLog log;
  bool too_many = false;  ///< calls, since the last comparison
  struct Open {
    const Request::Impl* impl;
    int64_t call;
  };
  std::vector<Open> open;  ///< messages that nobody has waited for
};

CheckedCommunicator::CheckedCommunicator(std::unique_ptr<Communicator> inner, std::size_t most_calls)
    : inner_(std::move(inner)),
      apart_(inner_->split(0, inner_->rank(), "comparison of calls")),
      record_(std::make_shared<Record>()) {
  record_->world_rank = rank();
  record_->most_calls = most_calls;
  std::vector<int32_t> ranks(static_cast<std::size_t>(size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  enter({0, std::string(name()), std::move(ranks)});
}

CheckedCommunicator::CheckedCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Record> record)
    : inner_(std::move(inner)), record_(std::move(record)) {
  // Of each member who it is, and how many communicators it has made: the first one's are the new one's id.
  std::vector<int32_t> members(2 * static_cast<std::size_t>(size()));
  const auto own = 2 * static_cast<std::size_t>(rank());
  members[own] = record_->world_rank;
  members[own + 1] = ++record_->num_groups;
  const Tensor all = make_tensor(members.data(), size(), 2);
  finish(*inner_, inner_->all_gather(all, all.row_range(rank(), 1)));
  CallGroup group{(int64_t{members[0]} << 32) + members[1], std::string(name()), {}};
  for (std::size_t i = 0; i < members.size(); i += 2) group.ranks.push_back(members[i]);
  enter(std::move(group));
}

CheckedCommunicator::~CheckedCommunicator() = default;

void CheckedCommunicator::enter(CallGroup group) {
  group_ = static_cast<int32_t>(record_->log.groups.size());
  record_->log.groups.push_back(std::move(group));
}

void CheckedCommunicator::note(Call call) {
  if (size() == 1 || record_->too_many) return;
  call.group = group_;
  record_->too_many = record_->log.calls.size() >= record_->most_calls;
  if (!record_->too_many) record_->log.calls.push_back(call);
}

void CheckedCommunicator::note_message(CallKind kind, const Tensor& x, int peer, int tag,
                                       const Request& request) {
  note({0, kind, x.dtype, ReduceOp::sum, peer, tag, x.size(), -1});
  if (request && size() > 1 && !record_->too_many)
    record_->open.push_back({request.get(), static_cast<int64_t>(record_->log.calls.size()) - 1});
}

Request CheckedCommunicator::all_reduce(const Tensor& x, ReduceOp op) {
  note({0, CallKind::all_reduce, x.dtype, op, 0, 0, x.size(), -1});
  return inner_->all_reduce(x, op);
}

Request CheckedCommunicator::reduce_scatter(const Tensor& receive, const Tensor& send) {
  note({0, CallKind::reduce_scatter, receive.dtype, ReduceOp::sum, 0, 0, receive.size(), -1});
  return inner_->reduce_scatter(receive, send);
}

Request CheckedCommunicator::all_gather(const Tensor& receive, const Tensor& send) {
  note({0, CallKind::all_gather, send.dtype, ReduceOp::sum, 0, 0, send.size(), -1});
  return inner_->all_gather(receive, send);
}

Request CheckedCommunicator::broadcast(const Tensor& x, int root) {
  note({0, CallKind::broadcast, x.dtype, ReduceOp::sum, root, 0, x.size(), -1});
  return inner_->broadcast(x, root);
}

Request CheckedCommunicator::barrier() {
  note({0, CallKind::barrier, DType::fp32, ReduceOp::sum, 0, 0, 0, -1});
  return inner_->barrier();
}

Request CheckedCommunicator::send(const Tensor& x, int destination, int tag) {
  Request request = inner_->send(x, destination, tag);
  note_message(CallKind::send, x, destination, tag, request);
  return request;
}

Request CheckedCommunicator::receive(const Tensor& x, int source, int tag) {
  Request request = inner_->receive(x, source, tag);
  note_message(CallKind::receive, x, source, tag, request);
  return request;
}

void CheckedCommunicator::wait(Request& request, std::string_view what) {
  const auto found = std::find_if(record_->open.begin(), record_->open.end(),
                                  [&](const Record::Open& open) { return open.impl == request.get(); });
  if (request && found != record_->open.end()) {
    note({0, CallKind::wait, DType::fp32, ReduceOp::sum, 0, 0, 0, found->call});
    record_->open.erase(found);
  }
  inner_->wait(request, what);
}

std::unique_ptr<Communicator> CheckedCommunicator::split(int color, int key, std::string_view name) {
  return std::unique_ptr<Communicator>(new CheckedCommunicator(inner_->split(color, key, name), record_));
}

void CheckedCommunicator::compare_calls() {
  RED_CHECK(group_ == 0, "calls are compared on the communicator of all ranks, not on {}", name());
  if (size() == 1) return;
  std::vector<uint8_t> own;
  if (!record_->too_many) own = bytes_of(record_->log);
  std::vector<double> sizes(static_cast<std::size_t>(size()));
  sizes[static_cast<std::size_t>(rank())] = record_->too_many ? kTooMany : static_cast<double>(own.size());
  record_->log.calls.clear();
  record_->open.clear();
  record_->too_many = false;
  const Tensor all = make_tensor(sizes.data(), size(), 1);
  finish(*apart_, apart_->all_gather(all, all.row_range(rank(), 1)));
  if (std::accumulate(sizes.begin(), sizes.end(), 0.0) > kMostBytes)
    return log::warning("more calls since the last comparison than are kept: they are not compared");
  const std::vector<CallLog> logs = gather({sizes.begin(), sizes.end()}, own);
  const std::string text = share(*apart_, rank() == 0 ? conflict(logs) : std::string());
  if (!text.empty()) throw LogicError("the ranks' operations do not go together: {}", text);
}

/// Rank 0 gets them; others nothing.
std::vector<CallLog> CheckedCommunicator::gather(const std::vector<int64_t>& sizes,
                                                 std::vector<uint8_t>& own) {
  std::vector<CallLog> logs;
  if (rank() != 0) {
    finish(*apart_, apart_->send(tensor_of(own), 0, kTagCalls));
    return logs;
  }
  logs.push_back(log_of(own));
  for (int r = 1; r < size(); ++r) {
    std::vector<uint8_t> bytes(static_cast<std::size_t>(sizes[static_cast<std::size_t>(r)]));
    finish(*apart_, apart_->receive(tensor_of(bytes), r, kTagCalls));
    logs.push_back(log_of(bytes));
  }
  return logs;
}

std::unique_ptr<Communicator> with_calls_compared(std::unique_ptr<Communicator> world, CallCheck check) {
  const bool compares = check == CallCheck::yes || (check == CallCheck::automatic && kDebugBuild);
  if (!compares || world->size() == 1) return world;
  return std::make_unique<CheckedCommunicator>(std::move(world));
}

}  // namespace red::parallel

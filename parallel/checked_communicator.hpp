// Communicator that remembers what every rank calls, and compares it between ranks where compare_calls() says
// so, once a step: ranks that call different things, messages that nobody receives, and orders across
// communicators in which ranks can wait for each other in a circle (parallel/call_order) are told with ranks
// and operations, where the run would hang, or would hang on another machine. A run that does not compare
// does not have it.
#pragma once

#include <memory>
#include <vector>

#include "parallel/call_order.hpp"
#include "parallel/transport.hpp"

namespace red::parallel {

class CheckedCommunicator final : public Communicator {
 public:
  /// `inner` has all ranks: collective. most_calls: that a rank remembers; more of them are not compared, as
  /// an evaluation of days compares none and must not fill the memory.
  explicit CheckedCommunicator(std::unique_ptr<Communicator> inner,
                               std::size_t most_calls = std::size_t{1} << 20);
  ~CheckedCommunicator() override;

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::string_view name() const override { return inner_->name(); }

  Request all_reduce(const Tensor& x, ReduceOp op) override;
  Request reduce_scatter(const Tensor& receive, const Tensor& send) override;
  Request all_gather(const Tensor& receive, const Tensor& send) override;
  Request broadcast(const Tensor& x, int root) override;
  Request send(const Tensor& x, int destination, int tag) override;
  Request receive(const Tensor& x, int source, int tag) override;
  Request barrier() override;

  void wait(Request& request, std::string_view what) override;
  bool test(Request& request) override { return inner_->test(request); }
  void poll() noexcept override { inner_->poll(); }
  /// The part must die before this one. Collective within each part.
  std::unique_ptr<Communicator> split(int color, int key, std::string_view name) override;
  void connect(std::span<const Route> routes) override { inner_->connect(routes); }
  /// Of all ranks' communicator, for its parts too. Messages of which one end was called since the last time
  /// and the other was not count as wrong.
  void compare_calls() override;
  double wait_seconds() const override { return inner_->wait_seconds(); }

 private:
  struct Record;
  CheckedCommunicator(std::unique_ptr<Communicator> inner, std::shared_ptr<Record> record);

  void enter(CallGroup group);
  void note(Call call);
  void note_message(CallKind kind, const Tensor& x, int peer, int tag, const Request& request);
  std::vector<CallLog> gather(const std::vector<int64_t>& sizes, std::vector<uint8_t>& own);

  std::unique_ptr<Communicator> inner_;
  std::unique_ptr<Communicator>
      apart_;                       ///< of all ranks' one: for the comparison, whatever is open elsewhere
  std::shared_ptr<Record> record_;  ///< of all communicators of this rank
  int32_t group_ = 0;               ///< of this one, in the record
};

/// `world`, or the same with calls compared, as `check` says.
std::unique_ptr<Communicator> with_calls_compared(std::unique_ptr<Communicator> world, CallCheck check);

}  // namespace red::parallel

// Communicator that writes down what goes through it: every transfer from its call to its end, and every
// wait. It adds nothing to the messages, and a run that is not traced does not have it.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "parallel/communicator.hpp"
#include "parallel/trace_log.hpp"

namespace red::parallel {

class TracedCommunicator final : public Communicator {
 public:
  /// Both must outlive it. `inner` has all ranks.
  TracedCommunicator(Communicator& inner, TraceLog& log);

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string_view name() const override { return inner_.name(); }

  Request all_reduce(const Tensor& x, ReduceOp op) override;
  Request reduce_scatter(const Tensor& receive, const Tensor& send) override;
  Request all_gather(const Tensor& receive, const Tensor& send) override;
  Request broadcast(const Tensor& x, int root) override;
  Request send(const Tensor& x, int destination, int tag) override;
  Request receive(const Tensor& x, int source, int tag) override;
  Request barrier() override;

  void wait(Request& request, std::string_view what) override;
  bool test(Request& request) override;
  void poll() noexcept override { inner_.poll(); }
  /// The part must die before this one. Collective within each part.
  std::unique_ptr<Communicator> split(int color, int key, std::string_view name) override;
  void connect(std::span<const Route> routes) override { inner_.connect(routes); }
  void compare_calls() override { inner_.compare_calls(); }
  double wait_seconds() const override { return inner_.wait_seconds(); }

 private:
  TracedCommunicator(std::unique_ptr<Communicator> inner, TraceLog& log, std::vector<int> world_ranks);

  Request collective(Request request, const char* name, const Tensor& x);
  Request message(Request request, const Tensor& x, int peer, int tag, bool sends);
  void begun(const Request& request, TraceTransfer transfer);
  void done(const Request::Impl* impl);

  std::unique_ptr<Communicator> owned_;  ///< of a part
  Communicator& inner_;
  TraceLog& log_;
  std::vector<int> world_ranks_;  ///< by own rank
  struct Open {
    const Request::Impl* impl;
    int64_t transfer;
  };
  std::vector<Open> open_;
  /// Messages so far by peer, tag and direction: they arrive in the order sent, so both ends count alike.
  std::map<std::tuple<int, int, bool>, int64_t> num_messages_;
};

}  // namespace red::parallel

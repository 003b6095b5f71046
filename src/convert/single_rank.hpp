// A communicator of one rank, without MPI: for code that takes one where there is nobody to talk to.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "base/check.hpp"
#include "parallel/communicator.hpp"

namespace red::convert {

class SingleRank final : public parallel::Communicator {
 public:
  /// `on_poll` runs whenever somebody lets the communicator make progress.
  explicit SingleRank(std::function<void()> on_poll) : on_poll_(std::move(on_poll)) {}

  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string_view name() const override { return "single"; }

  parallel::Request all_reduce(const Tensor&, parallel::ReduceOp) override { return {}; }
  parallel::Request reduce_scatter(const Tensor& receive, const Tensor& send) override {
    return copy(receive, send);
  }
  parallel::Request all_gather(const Tensor& receive, const Tensor& send) override {
    return copy(receive, send);
  }
  parallel::Request broadcast(const Tensor&, int) override { return {}; }
  parallel::Request send(const Tensor&, int, int) override { return nobody(); }
  parallel::Request receive(const Tensor&, int, int) override { return nobody(); }
  parallel::Request barrier() override { return {}; }
  void wait(parallel::Request&, std::string_view) override {}
  bool test(parallel::Request&) override { return true; }
  void poll() noexcept override { on_poll_(); }
  std::unique_ptr<Communicator> split(int, int, std::string_view) override {
    return std::make_unique<SingleRank>(on_poll_);
  }
  double wait_seconds() const override { return 0.0; }

 private:
  static parallel::Request copy(const Tensor& to, const Tensor& from) {
    if (to.data != from.data)
      std::memmove(to.data, from.data, static_cast<std::size_t>(from.size()) * size_of(from.dtype));
    return {};
  }
  static parallel::Request nobody() {
    RED_CHECK(false, "a message to another rank, where there is one rank");
    return {};
  }

  std::function<void()> on_poll_;
};

}  // namespace red::convert

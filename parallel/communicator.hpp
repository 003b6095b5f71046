// Communicator: collectives and messages between the ranks of one group. Nothing blocks: every operation
// returns a Request, and a named wait finishes it, so that a hung run can say who waits for what, and any
// wait can be called off (docs/adr/0003). Open MPI makes progress only inside its calls: poll() between ops
// moves transfers along. Counts are 64-bit; longer messages are cut below 2^31 elements.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "device/tensor.hpp"

namespace red::parallel {

enum class ReduceOp { sum, max, min };

/// One operation under way. Move-only; must be waited for before it dies, and so must the memory it uses. Its
/// Impl goes back to the backend that made it, so that a step makes no new ones. An empty one is done: wait()
/// returns at once and test() says true. A call may give one back (nothing to move, one rank, an operation
/// that was waited for within it), so it never means that there was no call.
class Request {
 public:
  class Impl;  // of the backend (parallel/request_impl.hpp)
  struct GiveBack {
    void operator()(Impl* impl) const noexcept;
  };

  Request() = default;
  explicit Request(Impl* impl) : impl_(impl) {}
  Impl* get() const { return impl_.get(); }
  explicit operator bool() const { return impl_ != nullptr; }  ///< false: done, or never begun

 private:
  std::unique_ptr<Impl, GiveBack> impl_;
};

/// Where messages go: all of one tag from one rank of a communicator to another.
struct Route {
  int source = 0, destination = 0, tag = 0;

  auto operator<=>(const Route&) const = default;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view name() const = 0;  ///< "world", "data (ranks 0, 2)", ...

  /// In place, over contiguous tensors (fp32, fp64, int32, bf16). Adds in the order of ranks, x of rank 0
  /// first, so the result is the same on every rank and in every run, bit for bit, whatever lies beside it in
  /// the tensor. bf16 is added in fp32 and rounded once.
  [[nodiscard]] virtual Request all_reduce(const Tensor& x, ReduceOp op) = 0;
  /// send is (size, chunk) by rank; receive (1, chunk) gets the sum of everyone's row rank(), added as
  /// all_reduce does. It may be row rank() of send.
  [[nodiscard]] virtual Request reduce_scatter(const Tensor& receive, const Tensor& send) = 0;
  /// receive is (size, chunk); row r comes from rank r. send (1, chunk) may be row rank() of receive.
  [[nodiscard]] virtual Request all_gather(const Tensor& receive, const Tensor& send) = 0;
  [[nodiscard]] virtual Request broadcast(const Tensor& x, int root) = 0;
  /// Messages with one tag between two ranks arrive in the order sent. The receiver knows the size.
  [[nodiscard]] virtual Request send(const Tensor& x, int destination, int tag) = 0;
  [[nodiscard]] virtual Request receive(const Tensor& x, int source, int tag) = 0;
  [[nodiscard]] virtual Request barrier() = 0;

  /// Finishes the operation. `what` names it in the log when it takes long ("reduce-scatter of bucket 3").
  /// Throws CommunicationError when another rank failed or the deadline passed; must be a literal or live as
  /// long.
  virtual void wait(Request& request, std::string_view what) = 0;
  /// Moves transfers along without waiting; true when the operation is done.
  virtual bool test(Request& request) = 0;
  /// Lets MPI make progress and looks at the abort flag; microseconds. Never throws, as it runs between the
  /// tasks of an op: what it finds comes out of the next wait or test.
  virtual void poll() noexcept = 0;

  /// Ranks of equal colour form a new communicator, in the order of their keys.
  virtual std::unique_ptr<Communicator> split(int color, int key, std::string_view name) = 0;

  /// Where messages of device memory need connections these are made now, and a later one that has none is
  /// refused: a step connects nobody. Collective, with no message under way; all ranks give the same routes.
  /// May be called again, for more.
  virtual void connect(std::span<const Route>) {}

  /// Where calls are compared (parallel/checked_communicator) all of them since the last time are, on all
  /// ranks: throws LogicError on each where they do not go together. Collective over all ranks then.
  virtual void compare_calls() {}

  /// Seconds spent inside wait() so far; phases of a step are told apart by it.
  virtual double wait_seconds() const = 0;
};

}  // namespace red::parallel

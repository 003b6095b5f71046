// Communicator for tensors in device memory over NCCL, laid over one for host memory, which takes the tensors
// that lie there, and splits, and waits. A wait for an operation on the device holds the compute stream and
// not the host; Stream::synchronize() is where the host meets a rank that is lost (docs/adr/0021).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "parallel/communicator.hpp"
#include "parallel/nccl_context.hpp"

namespace red::parallel {

struct NcclOptions {
  /// Whether the compute stream goes on while a collective is under way. The results are the same.
  bool overlap = true;
};

/// Device tensors are read after the work that the stream was given before the call, and written before what
/// it is given after wait() (or a test() that said true). NCCL adds in an order of its own, which depends on
/// the number of ranks and on the place in the tensor: the same on every rank and in every run of one
/// machine, but not that of ranks; and bf16 is rounded after each addition. max and min promise nothing about
/// NaN.
class NcclCommunicator final : public Communicator {
 public:
  /// `host` has all ranks, each with a GPU of its own; it and `stream` must outlive it. Collective.
  NcclCommunicator(Communicator& host, std::shared_ptr<MpiContext> mpi, Stream& stream,
                   const NcclOptions& options);
  ~NcclCommunicator() override;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  std::string_view name() const override { return host_.name(); }

  Request all_reduce(const Tensor& x, ReduceOp op) override;
  Request reduce_scatter(const Tensor& receive, const Tensor& send) override;
  Request all_gather(const Tensor& receive, const Tensor& send) override;
  Request broadcast(const Tensor& x, int root) override;
  Request send(const Tensor& x, int destination, int tag) override;
  Request receive(const Tensor& x, int source, int tag) override;
  Request barrier() override { return host_.barrier(); }

  void wait(Request& request, std::string_view what) override;
  bool test(Request& request) override;
  void poll() noexcept override { host_.poll(); }
  /// Messages along routes that nobody announced make their connections when they first come, as long as this
  /// was not called: benchmarks and tests do so.
  void connect(std::span<const Route> routes) override;
  /// The part must die before this one.
  std::unique_ptr<Communicator> split(int color, int key, std::string_view name) override;
  /// The host's own: the compute stream's waits take no time of it, and its WorkTimer knows them.
  double wait_seconds() const override { return host_.wait_seconds(); }

 private:
  NcclCommunicator(std::shared_ptr<NcclContext> context, std::unique_ptr<Communicator> host,
                   const NcclOptions& options);

  void connect_all();
  Request collective(const NcclCall& call);
  Request message(const NcclCall& call, int tag);
  std::unique_ptr<NcclChannel> new_channel(int peer, int tag, bool sends);

  std::unique_ptr<Communicator> owned_;  ///< of a part: the host communicator
  Communicator& host_;
  std::shared_ptr<NcclContext> context_;
  NcclOptions options_;
  std::unique_ptr<NcclLink> link_;  ///< of collectives; none for one rank
  /// By the other rank, the tag, and whether this rank sends.
  std::map<std::tuple<int, int, bool>, std::unique_ptr<NcclChannel>> channels_;
  bool has_routes_ = false;  ///< connect() said which channels there are
};

/// "2.30.7", of the library that was found when the program started.
std::string nccl_version();

}  // namespace red::parallel

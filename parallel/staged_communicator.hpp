// Communicator for tensors in device memory, over one for host memory: what goes out is copied to the host
// first, what comes in is copied back when it has arrived. It works wherever the other one does, also where
// several ranks share a GPU; its price is a wait for the stream whenever something goes out. Tensors in host
// memory pass through untouched, and on the CPU all are. Where MPI is CUDA-aware, messages and gatherings of
// device memory pass through as well; what is added up, and broadcasts, never do: Open MPI's support does not
// cover collectives that do not block, and its sums are made on the host too.
#pragma once

#include <memory>

#include "device/stream.hpp"
#include "parallel/communicator.hpp"

namespace red::parallel {

class StagingPool;

/// Whose memory the host communicator's messages and gatherings may be given.
enum class MpiReach { host_memory, device_memory };

/// Device tensors are read after the work that `stream` was given before the call, and written before what it
/// is given after wait() (or a test() that said true). The results are the host communicator's, bit for bit.
class StagedCommunicator final : public Communicator {
 public:
  /// Both must outlive it.
  StagedCommunicator(Communicator& host, Stream& stream, MpiReach reach = MpiReach::host_memory);
  ~StagedCommunicator() override;

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
  /// The part is over a communicator of its own, and must die before this one.
  std::unique_ptr<Communicator> split(int color, int key, std::string_view name) override;
  double wait_seconds() const override { return host_.wait_seconds(); }

 private:
  StagedCommunicator(std::unique_ptr<Communicator> host, Stream& stream, MpiReach reach,
                     std::shared_ptr<StagingPool> pool);
  bool passes_through(const Tensor& x) const;

  std::unique_ptr<Communicator> owned_;  ///< of a part: the host communicator
  Communicator& host_;
  Stream& stream_;
  MpiReach reach_;
  std::shared_ptr<StagingPool> pool_;
};

}  // namespace red::parallel

// Communicator over MPI, on host memory.
#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.hpp"
#include "parallel/mpi_context.hpp"

namespace red::parallel {

/// Only the main thread may use it, and its memory, and all its Requests must die before the context's MPI
/// does.
class MpiCommunicator final : public Communicator {
 public:
  /// Takes over `comm` and makes a duplicate for messages of its own, and shared memory where all its ranks
  /// are on one machine: collective over comm.
  MpiCommunicator(std::shared_ptr<MpiContext> context, MPI_Comm comm, std::string name);
  ~MpiCommunicator() override;
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string_view name() const override { return name_; }

  Request all_reduce(const Tensor& x, ReduceOp op) override;
  Request reduce_scatter(const Tensor& receive, const Tensor& send) override;
  Request all_gather(const Tensor& receive, const Tensor& send) override;
  Request broadcast(const Tensor& x, int root) override;
  Request send(const Tensor& x, int destination, int tag) override;
  Request receive(const Tensor& x, int source, int tag) override;
  Request barrier() override;

  void wait(Request& request, std::string_view what) override;
  bool test(Request& request) override;
  void poll() noexcept override;
  std::unique_ptr<Communicator> split(int color, int key, std::string_view name) override;
  double wait_seconds() const override { return context_->wait_seconds(); }

  /// Whether sums and gatherings of host memory go through memory that the ranks share.
  bool has_shared_memory() const { return ring_ != nullptr; }

 private:
  MpiPlace next_place();
  bool sums_in_shared_memory(const void* memory) const;
  Request start(const BlockTask& task);
  void check_peer(int peer, int tag) const;

  std::shared_ptr<MpiContext> context_;
  MPI_Comm comm_;                      ///< the caller's messages, and MPI's own collectives
  MPI_Comm internal_ = MPI_COMM_NULL;  ///< messages of our collectives
  std::string name_;
  std::unique_ptr<SharedRing> ring_;  ///< where all ranks are on one machine
  int rank_ = 0;
  int size_ = 1;
  uint32_t num_collectives_ = 0;
};

}  // namespace red::parallel

// MPI from its start to its end, and the communicator of all ranks. One object in main, made first and gone
// last.
#pragma once

#include <memory>

#include "parallel/mpi_communicator.hpp"

namespace red::parallel {

class MpiEnvironment {
 public:
  /// Starts MPI unless it runs already (then it is left running at the end). Without mpirun: one rank.
  explicit MpiEnvironment(const MpiOptions& options = {});
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  int rank() const { return world_->rank(); }
  int size() const { return world_->size(); }
  /// All other communicators are split off from it, and die before this object.
  Communicator& world() const { return *world_; }

 private:
  bool finalizes_ = false;
  std::unique_ptr<MpiCommunicator> world_;
};

}  // namespace red::parallel

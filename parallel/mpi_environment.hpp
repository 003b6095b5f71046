// MPI from its start to its end, and the communicator of all ranks. One object in main, made first and gone
// last. When a rank fails, fail() ends the run on every rank with the exit code of the first failure:
//   MpiEnvironment environment(options);
//   try { run(environment.world()); } catch (...) { environment.fail(std::current_exception()); }
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "parallel/mpi_communicator.hpp"

namespace red::parallel {

class MpiEnvironment {
 public:
  /// Starts MPI unless it runs already (then it is left running at the end). Without mpirun: one rank.
  explicit MpiEnvironment(const MpiOptions& options = {});
  /// The orderly end: waits for all ranks, and leaves like fail() when one of them failed meanwhile.
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  int rank() const { return world_->rank(); }
  int size() const { return world_->size(); }
  /// All other communicators are split off from it, and die before this object.
  Communicator& world() const { return *world_; }
  AbortChannel& channel() const { return context_->channel(); }
  /// For communicators that are laid over world().
  const std::shared_ptr<MpiContext>& context() const { return context_; }

  /// Called once by fail(), when the run's first failure is known and before this process leaves. It must be
  /// quick, and may not throw.
  void on_failure(std::function<void(const Failure&)> hook) { context_->on_failure(std::move(hook)); }

  /// Tells all ranks; exactly one of them prints the text of the run's first failure. Ends the process with
  /// that failure's exit code: MPI may be beyond an orderly end, so nothing else is tried.
  [[noreturn]] void fail(const std::exception_ptr& failure) { context_->fail(failure); }

 private:
  bool finalizes_ = false;
  std::shared_ptr<MpiContext> context_;
  std::unique_ptr<MpiCommunicator> world_;
};

/// This process's rank as mpirun or srun gives it, known before MPI starts; empty when neither started it.
std::optional<int> rank_from_launcher();

/// How many ranks they started, likewise; 1 when neither did.
int num_ranks_from_launcher();

/// Also true after MPI's end.
bool mpi_was_started();

}  // namespace red::parallel

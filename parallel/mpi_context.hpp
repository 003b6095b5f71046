// What all communicators of one process share: the pool of operations, the list of those that need help to
// move on, and the loop that waits.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "parallel/abort_channel.hpp"
#include "parallel/mpi_operation.hpp"
#include "parallel/mpi_options.hpp"
#include "parallel/shared_exchange.hpp"

namespace red::parallel {

class MpiContext {
 public:
  /// Collective over world.
  MpiContext(MPI_Comm world, const MpiOptions& options);
  ~MpiContext();
  MpiContext(const MpiContext&) = delete;
  MpiContext& operator=(const MpiContext&) = delete;

  const MpiOptions& options() const { return options_; }
  int world_rank() const { return world_rank_; }
  int world_size() const { return world_size_; }

  PlainOperation& new_plain();
  SmallAllReduce& new_small_all_reduce();
  BlockExchange& new_exchange();
  SharedExchange& new_shared_exchange();
  void give_back(PlainOperation& operation) noexcept;
  void give_back(SmallAllReduce& operation) noexcept;
  void give_back(BlockExchange& operation) noexcept;
  void give_back(SharedExchange& operation) noexcept;

  AbortChannel& channel() { return channel_; }

  /// As MpiEnvironment's, for all who have no environment.
  void on_failure(std::function<void(const Failure&)> hook) { on_failure_ = std::move(hook); }
  [[noreturn]] void fail(const std::exception_ptr& failure);
  /// The first half of fail(), for who has to unwind first: all ranks know of the failure, it is printed, and
  /// if this rank hangs on its way out it is ended all the same. Returns the run's first failure.
  Failure announce(const std::exception_ptr& failure);

  /// From now on progress() advances it, until it is done.
  void activate(MpiOperation& operation) { active_.push_back(&operation); }
  /// Lets MPI and the exchanges move on. Never throws, because it runs in the midst of other work: an error
  /// waits for the next wait() or test().
  void progress() noexcept;
  /// Throws what progress() kept, or the failure of another rank.
  void throw_if_failed();
  void wait(MpiOperation& operation, std::string_view what, std::string_view communicator);
  /// The same for whatever else another rank has to do, until done(), which is asked in every turn; its time
  /// is not among wait_seconds(). Throws what done() throws.
  void wait_until(const std::function<bool()>& done, std::string_view what, std::string_view communicator);
  /// What goes on beside MPI and has to be looked at as often, such as a GPU's messages: part of every
  /// progress(). Its error comes out of the next wait, as MPI's do.
  void set_companion(std::function<void()> poll) { companion_ = std::move(poll); }
  double wait_seconds() const { return wait_seconds_; }
  /// Once true: a process says it of one communicator and not of all.
  bool is_first_without_shared_memory() { return !std::exchange(told_no_shared_memory_, true); }

 private:
  template <class Operation>
  struct Pool {
    std::vector<std::unique_ptr<Operation>> all;
    std::vector<Operation*> free;

    Operation& take(MpiContext& context);
    void put(Operation& operation) noexcept { free.push_back(&operation); }  // capacity: all.size()
  };

  MpiOptions options_;
  MPI_Comm silent_ = MPI_COMM_NULL;  ///< nothing is ever sent here: probing it only makes progress
  int world_rank_ = 0;
  int world_size_ = 1;
  Pool<PlainOperation> plain_;
  Pool<SmallAllReduce> small_;
  Pool<BlockExchange> exchanges_;
  Pool<SharedExchange> shared_;
  std::vector<MpiOperation*> active_;
  std::function<void()> companion_;
  std::function<void(const Failure&)> on_failure_;
  std::exception_ptr error_;  ///< of progress()
  AbortChannel channel_;
  double wait_seconds_ = 0;
  bool told_no_shared_memory_ = false;
};

}  // namespace red::parallel

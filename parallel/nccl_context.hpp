// What all NCCL communicators of one process share: the compute stream that they are ordered against, the
// pool of operations, and the eye on what is under way: it launches what had to wait, looks for NCCL's
// errors, and waits with a deadline, as MPI's waits do, where the host has to.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "device/buffer.hpp"
#include "device/stream.hpp"
#include "parallel/mpi_context.hpp"
#include "parallel/nccl_link.hpp"

namespace red::parallel {

class NcclContext {
 public:
  /// `stream` must outlive it. From now on stream.synchronize() notices ranks that are lost.
  NcclContext(std::shared_ptr<MpiContext> mpi, Stream& stream);
  ~NcclContext();
  NcclContext(const NcclContext&) = delete;
  NcclContext& operator=(const NcclContext&) = delete;

  Stream& stream() { return stream_; }

  /// Begins after what the stream was given so far, and is launched at once unless ranks have to be connected
  /// first.
  NcclOperation& start(const NcclCall& call, NcclLink& link);
  /// What the stream is given from now on runs after the operation, which is done with.
  void wait(NcclOperation& operation, std::string_view what);
  bool test(NcclOperation& operation);
  void give_back(NcclOperation& operation) noexcept;

  /// Holds the host until done(), with a deadline and an eye on failures.
  void hold_until(const std::function<bool()>& done, std::string_view what, std::string_view communicator);
  /// Holds the host until the link's ranks have had a first operation of its kind together, of one element:
  /// NCCL connects them for it, and takes what memory that needs. With a deadline, as hold_until().
  void connect(NcclKind kind, int peer, NcclLink& link);
  /// Does what belongs to the orderly end of a link. A failure ends the process, as MpiContext::fail():
  /// nobody could go on, and whatever came next might wait for the device.
  void in_order(const std::function<void()>& work) noexcept;

  void enroll(NcclLink& link) { links_.push_back(&link); }
  void leave(NcclLink& link) noexcept;

 private:
  template <class Look>
  void look(const Look& body);
  void advance(NcclLink& link);
  void poll();
  void retire();
  void wait_for_stream(const std::function<bool()>& idle);

  std::shared_ptr<MpiContext> mpi_;
  Stream& stream_;
  Buffer element_;  ///< what connect() sends about
  std::vector<NcclLink*> links_;
  std::vector<std::unique_ptr<NcclOperation>> all_;
  std::vector<NcclOperation*> free_;
  std::vector<NcclOperation*> waited_;  ///< in the order of waits; over when the stream has passed them
  bool polling_ = false;
};

}  // namespace red::parallel

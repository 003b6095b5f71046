// NcclLink: one of NCCL's communicators and the CUDA stream of its own that its operations run on, one after
// another. NcclChannel: a link of two ranks for the messages of one tag in one direction (docs/adr/0021 says
// why there are so many).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "parallel/nccl_check.hpp"
#include "parallel/nccl_operation.hpp"

namespace red::parallel {

/// What rank 0 of a link makes and all its ranks need.
using NcclId = std::array<uint8_t, NCCL_UNIQUE_ID_BYTES>;
NcclId new_nccl_id();

class NcclLink {
 public:
  /// Not connected yet; `name` is for messages.
  NcclLink(NcclContext& context, std::string name);
  /// Waits for the end of its operations and ends in order, with a deadline. When an exception unwinds it
  /// leaves all to the driver, which ends what runs on the GPU with the process: ncclCommAbort may wait for
  /// another communicator's kernels, or for other ranks.
  virtual ~NcclLink();
  NcclLink(const NcclLink&) = delete;
  NcclLink& operator=(const NcclLink&) = delete;

  /// Begins to connect; NCCL does it beside. max_blocks: of the GPU, for one operation; 0: as NCCL likes.
  void connect(const NcclId& id, int size, int rank, int max_blocks = 0);
  /// Whether all ranks are there. Throws what NCCL says.
  bool settled();

  /// Operations are launched in the order in which they come.
  void push(NcclOperation& operation) { queue_.push_back(&operation); }
  /// Launches what can be launched; never waits. Throws what NCCL says.
  virtual void advance();
  /// Throws CommunicationError when NCCL has noticed one, of its connections or a rank. Whether nothing is in
  /// progress.
  bool look_for_error();
  /// Before several links die: each ends when all its ranks have begun, so that their order does not matter.
  void begin_to_end() noexcept;

  const std::string& name() const { return name_; }
  bool connected() const { return comm_ != nullptr; }

 protected:
  NcclContext& context_;

 private:
  void issue(NcclOperation& operation);

  std::string name_;
  red::detail::CudaStream stream_{red::detail::Priority::high};
  ncclComm_t comm_ = nullptr;
  bool settled_ = false, ending_ = false;
  std::vector<NcclOperation*> queue_;  ///< not launched yet
};

class NcclChannel final : public NcclLink {
 public:
  /// From rank 0 of the link to rank 1, whose rank in `host` is given to the other one as `peer`; `tag` is of
  /// the host's message that carries the link's id.
  NcclChannel(NcclContext& context, std::string name, Communicator& host, int peer, int tag, bool sends);
  ~NcclChannel() override;
  void advance() override;

 private:
  Communicator& host_;
  bool sends_;
  NcclId id_{};
  Request id_under_way_;
};

}  // namespace red::parallel

// Whether what all ranks called on their communicators goes together. Collectives of a communicator must be
// the same, in the same order, on all its ranks; across communicators their orders must not form a circle, in
// which each rank may wait for the next one for ever; and the n-th message that is sent must be as long as
// the n-th that is received. A pure function of what each rank called.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"
#include "parallel/communicator.hpp"

namespace red::parallel {

/// wait: for a message, which may be called long before.
enum class CallKind : int32_t {
  all_reduce,
  reduce_scatter,
  all_gather,
  broadcast,
  barrier,
  send,
  receive,
  wait
};

struct Call {
  int32_t group = 0;  ///< index in CallLog::groups
  CallKind kind = CallKind::barrier;
  DType dtype = DType::fp32;
  ReduceOp op = ReduceOp::sum;
  int32_t peer = 0;   ///< of a message, or the root of a broadcast: rank of the group
  int32_t tag = 0;    ///< of a message
  int64_t count = 0;  ///< elements
  int64_t of = -1;    ///< of a wait: index of the message's call
};

/// A communicator.
struct CallGroup {
  int64_t id = 0;  ///< the same on all its ranks, and no other's
  std::string name;
  std::vector<int32_t> ranks;  ///< of all ranks, by rank of the group
};

/// Of one rank, in the order of its calls.
struct CallLog {
  std::vector<CallGroup> groups;
  std::vector<Call> calls;
};

/// The first thing that is wrong, with the ranks (of all) and operations, or the circle; empty where all goes
/// together. logs[r] is rank r's. A message's send is over when its receive was called, and the other way
/// round, as with long messages; a collective when all ranks of its communicator have called it, even if they
/// wait for it later, since on a GPU it may keep the place that another one needs.
std::string conflict(std::span<const CallLog> logs);

}  // namespace red::parallel

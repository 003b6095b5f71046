// Private to the fake of NCCL: what is behind a communicator, and its messages over MPI. Ranks are found by
// their rank in MPI_COMM_WORLD, on which nobody else sends messages.
#pragma once

#include <mpi.h>
#include <nccl.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

/// States: joining until all ranks are known; connecting while the ranks of the first operation meet, which
/// is held back so long; then ready. ended after ncclCommFinalize.
struct ncclComm {
  enum class State { joining, launching, ready, ended };
  State state = State::joining;
  int rank = 0, size = 1;
  uint32_t key = 0;        ///< the same on all its ranks, and no other communicator's
  std::vector<int> world;  ///< ranks of MPI_COMM_WORLD, by rank here
  cudaStream_t stream = nullptr;
  std::vector<bool> connected;  ///< by rank
  std::function<void()> held;   ///< pushes the operation
  std::vector<int> awaited;     ///< whom it waits for
  int64_t num_operations = 0;
  int num_under_way = 0;
};

namespace cuda_on_cpu {

/// What tests plant.
struct NcclFaults {
  ncclResult_t async_error =
      ncclSuccess;  ///< what ncclCommGetAsyncError says of a communicator that is ready
};
NcclFaults& nccl_faults();

/// Of this process so far.
struct NcclCounts {
  int64_t communicators = 0;  ///< begun
  int64_t connections = 0;    ///< to another rank, for a communicator's first operation with it
  int64_t operations = 0;     ///< that are over
  int64_t bytes = 0;          ///< that these wrote, or sent

  bool operator==(const NcclCounts&) const = default;
};
NcclCounts& nccl_counts();

enum class Channel : int { joining = 1, connecting = 2, data = 3 };

/// Bytes to a rank of the communicator; kept until they are there. `synchronous`: over when the other side
/// has taken them, as NCCL's messages are.
class Outgoing {
 public:
  Outgoing(const ncclComm& comm, int world_rank, Channel channel, std::vector<std::byte> bytes,
           bool synchronous);
  bool over();

 private:
  std::vector<std::byte> bytes_;  ///< stays where it is when this is moved
  MPI_Request request_ = MPI_REQUEST_NULL;
};

/// Sends what nobody waits for.
void send_and_forget(const ncclComm& comm, int world_rank, Channel channel, std::vector<std::byte> bytes);

/// Takes the next message of that rank, or of any (MPI_ANY_SOURCE), if it has come.
bool take(const ncclComm& comm, int world_rank, Channel channel, std::vector<std::byte>& bytes);

enum class Call : int32_t { all_reduce, reduce_scatter, all_gather, broadcast, send, receive };

/// What all ranks of an operation must agree on; a receive says what its send says.
struct Header {
  int32_t call, type, op, root;
  int64_t number, count;

  bool operator==(const Header&) const = default;
};

struct Arguments {
  Call call = Call::all_reduce;
  const std::byte* source = nullptr;
  std::byte* target = nullptr;
  std::size_t count = 0;
  ncclDataType_t type = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  int peer = 0;
};

std::size_t size_of(ncclDataType_t type);  ///< 0: not one that the backend uses

/// Puts the operation into the stream.
void begin_transfer(ncclComm& comm, const Arguments& arguments, cudaStream_t stream);

}  // namespace cuda_on_cpu

// The part of NCCL that the backend uses, declared by NVIDIA's own header, over MPI between the processes of
// a test; a call that is not here fails the link. It holds the backend to what the documents of NCCL ask:
// communicators do not block, nothing is called while one is in progress, all ranks call the same in the same
// order, memory is the device's, one communicator has one stream, and nothing is under way at its end. An
// operation is in progress, and not in its stream, until somebody asks; the first between two ranks until
// both have come. There is no ncclCommAbort: it may wait for what never ends (docs/adr/0021).
#include <algorithm>
#include <cstring>
#include <utility>

#include "fakes/nccl_state.hpp"
#include "runtime/device_memory.hpp"
#include "runtime/failure.hpp"
#include "runtime/streams.hpp"

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace): a file of extern "C" functions

namespace {

/// What is in a ncclUniqueId. Its maker is rank 0 of the communicator, which the real one does not ask for.
struct UniqueId {
  uint32_t magic, key;
  int32_t maker;
};
constexpr uint32_t kMagic = 0x2CC1;

int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<int> ints_of(const std::vector<std::byte>& bytes) {
  std::vector<int> values(bytes.size() / sizeof(int));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

/// Rank 0 hears from all, and tells all who is who.
void join(ncclComm& comm) {
  std::vector<std::byte> bytes;
  if (comm.rank != 0) {
    if (!take(comm, comm.world[0], Channel::joining, bytes)) return;
    comm.world = ints_of(bytes);
  } else {
    while (take(comm, MPI_ANY_SOURCE, Channel::joining, bytes)) {
      const std::vector<int> told = ints_of(bytes);  // rank, size, rank of all
      if (told[1] != comm.size || told[0] <= 0 || told[0] >= comm.size || comm.world[told[0]] != -1)
        fail("rank {} of {} joins a communicator of {} ranks", told[0], told[1], comm.size);
      comm.world[told[0]] = told[2];
    }
    if (std::find(comm.world.begin(), comm.world.end(), -1) != comm.world.end()) return;
    for (int r = 1; r < comm.size; ++r)
      send_and_forget(comm, comm.world[r], Channel::joining, bytes_of(comm.world));
  }
  comm.state = ncclComm::State::ready;
}

void meet(ncclComm& comm) {
  std::vector<std::byte> bytes;
  std::erase_if(comm.awaited, [&](int r) {
    if (!take(comm, comm.world[r], Channel::connecting, bytes)) return false;
    comm.connected[r] = true;
    return true;
  });
  if (!comm.awaited.empty()) return;
  comm.state = ncclComm::State::ready;
  std::exchange(comm.held, {})();
}

ncclResult_t call(ncclComm_t comm, const Arguments& a, std::size_t source_rows, std::size_t target_rows,
                  cudaStream_t stream) {
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->state != ncclComm::State::ready)
    fail("a call of NCCL on a communicator that is in progress, or has ended");
  const std::size_t row_bytes = a.count * size_of(a.type);
  if (size_of(a.type) == 0 || a.count == 0) return ncclInvalidArgument;
  if (a.peer < 0 || a.peer >= comm->size) return ncclInvalidArgument;
  if (source_rows != 0 && !device_memory().contains(a.source, source_rows * row_bytes))
    return ncclInvalidArgument;
  if (target_rows != 0 && !device_memory().contains(a.target, target_rows * row_bytes))
    return ncclInvalidArgument;
  if (comm->stream == nullptr) comm->stream = stream;
  if (comm->stream != stream) fail("a communicator of NCCL is used on two streams");
  const bool is_message = a.call == Call::send || a.call == Call::receive;
  if (is_message && a.peer == comm->rank) return ncclInvalidUsage;
  for (int r = 0; r < comm->size; ++r) {
    if (r == comm->rank || comm->connected[r] || (is_message && r != a.peer)) continue;
    comm->awaited.push_back(r);
    ++nccl_counts().connections;
    send_and_forget(*comm, comm->world[r], Channel::connecting, {});
  }
  // The real one launches by a thread of its own, so that nothing is in the stream yet when this returns.
  comm->state = ncclComm::State::launching;
  comm->held = [comm, a, stream] { begin_transfer(*comm, a, stream); };
  return ncclInProgress;
}

Arguments arguments(Call call, const void* source, void* target, std::size_t count, ncclDataType_t type,
                    ncclRedOp_t op = ncclSum, int peer = 0) {
  return {call, static_cast<const std::byte*>(source), static_cast<std::byte*>(target), count, type, op,
          peer};
}

}  // namespace

namespace cuda_on_cpu {

NcclFaults& nccl_faults() {
  static NcclFaults faults;
  return faults;
}

NcclCounts& nccl_counts() {
  static NcclCounts counts;
  return counts;
}

}  // namespace cuda_on_cpu

/// For tests that are linked with the real NCCL too, where it is not there.
extern "C" int64_t nccl_bytes_on_cpu() {
  return nccl_counts().bytes;
}

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess:
      return "no error";
    case ncclInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t) {
  return "";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static uint32_t count = 0;
  // 2^10 ranks, each with 2^18 communicators.
  const UniqueId made{kMagic, static_cast<uint32_t>(world_rank()) << 18U | count++, world_rank()};
  std::memset(id, 0, sizeof(*id));
  std::memcpy(id->internal, &made, sizeof(made));
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  UniqueId made{};
  std::memcpy(&made, id.internal, sizeof(made));
  if (made.magic != kMagic || rank < 0 || rank >= size || config == nullptr) return ncclInvalidArgument;
  if (config->blocking != 0) fail("a communicator of NCCL that blocks: the backend could not be called off");
  if ((made.maker == world_rank()) != (rank == 0)) fail("the maker of NCCL's id is not rank 0");
  *comm = new ncclComm;
  ++nccl_counts().communicators;
  (*comm)->rank = rank;
  (*comm)->size = size;
  (*comm)->key = made.key;
  (*comm)->world.assign(static_cast<std::size_t>(size), -1);
  (*comm)->world[0] = made.maker;
  (*comm)->world[static_cast<std::size_t>(rank)] = world_rank();
  (*comm)->connected.resize(static_cast<std::size_t>(size));
  if (rank != 0)
    send_and_forget(**comm, made.maker, Channel::joining, bytes_of<int>({rank, size, world_rank()}));
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->state == ncclComm::State::joining) join(*comm);
  if (comm->state == ncclComm::State::launching) meet(*comm);
  if (comm->stream != nullptr) streams().asked(comm->stream);  // a GPU goes on by itself
  *error = ncclInProgress;
  if (comm->state == ncclComm::State::ready) *error = nccl_faults().async_error;
  if (comm->state == ncclComm::State::ended && comm->num_under_way == 0) *error = ncclSuccess;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->state != ncclComm::State::ready) fail("ncclCommFinalize of a communicator that is in progress");
  comm->state = ncclComm::State::ended;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm == nullptr) return ncclInvalidArgument;
  if (comm->state != ncclComm::State::ended) fail("ncclCommDestroy without ncclCommFinalize");
  if (comm->num_under_way != 0) fail("ncclCommDestroy with {} operations under way", comm->num_under_way);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclAllReduce(const void* source, void* target, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return call(comm, arguments(Call::all_reduce, source, target, count, type, op), 1, 1, stream);
}

ncclResult_t ncclReduceScatter(const void* source, void* target, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  const std::size_t rows = comm == nullptr ? 1 : static_cast<std::size_t>(comm->size);
  return call(comm, arguments(Call::reduce_scatter, source, target, count, type, op), rows, 1, stream);
}

ncclResult_t ncclAllGather(const void* source, void* target, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  const std::size_t rows = comm == nullptr ? 1 : static_cast<std::size_t>(comm->size);
  return call(comm, arguments(Call::all_gather, source, target, count, type), 1, rows, stream);
}

ncclResult_t ncclBroadcast(const void* source, void* target, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
  return call(comm, arguments(Call::broadcast, source, target, count, type, ncclSum, root), 1, 1, stream);
}

ncclResult_t ncclSend(const void* source, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return call(comm, arguments(Call::send, source, nullptr, count, type, ncclSum, peer), 1, 0, stream);
}

ncclResult_t ncclRecv(void* target, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return call(comm, arguments(Call::receive, nullptr, target, count, type, ncclSum, peer), 0, 1, stream);
}

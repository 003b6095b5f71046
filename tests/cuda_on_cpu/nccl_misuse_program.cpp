// Two ranks that use NCCL as its documents ask for, or wrongly in one way, named on the command line:
//   nccl_misuse_program MODE
// Ends with 0 when all went well; the fake ends it when it catches the mistake.
#include <mpi.h>
#include <nccl.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <thread>
#include <vector>

#include "runtime/options.hpp"

namespace {

constexpr int kCount = 1000;

/// What both ranks work with; the first operation has connected them.
struct Pair {
  explicit Pair(std::string_view which) : mode(which) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaMalloc(reinterpret_cast<void**>(&x), kCount * sizeof(float));
    cudaMalloc(reinterpret_cast<void**>(&y), kCount * sizeof(float));
    cudaMemsetAsync(x, 0, kCount * sizeof(float), stream);
    ncclUniqueId id;
    if (rank == 0) ncclGetUniqueId(&id);
    MPI_Bcast(&id, sizeof(id), MPI_BYTE, 0, MPI_COMM_WORLD);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = mode == "blocking" ? 1 : 0;
    ncclCommInitRankConfig(&comm, 2, id, rank, &config);
    settle();
    sum(x, kCount);
    wait();
  }

  void settle() const {
    ncclResult_t state = ncclInProgress;
    while (state == ncclInProgress) ncclCommGetAsyncError(comm, &state);
  }
  ncclResult_t sum(float* target, int count, ncclDataType_t type = ncclFloat32) const {
    const ncclResult_t result =
        ncclAllReduce(x, target, static_cast<std::size_t>(count), type, ncclSum, comm, stream);
    if (mode != "in_progress") settle();
    return result;
  }
  /// Asking, so that a lost rank could be seen.
  void wait() const {
    while (cudaStreamQuery(stream) == cudaErrorNotReady) {
    }
  }
  /// Lets what is in the stream begin.
  void begin() const {
    for (int i = 0; i < 20; ++i) cudaStreamQuery(stream);
  }

  std::string_view mode;
  int rank = 0;
  cudaStream_t stream = nullptr, other = nullptr;
  float *x = nullptr, *y = nullptr;
  ncclComm_t comm = nullptr;
};

void sleep_a_little() {
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
}

/// The mistakes with memory: this rank's operation has begun, and the other rank comes later.
void touch_early(const Pair& pair) {
  if (pair.rank == 1) {
    sleep_a_little();
    pair.sum(pair.y, kCount);
    return;
  }
  pair.sum(pair.y, kCount);
  pair.begin();
  float* touched = pair.mode == "source_changed" ? pair.x : pair.y;
  cudaMemsetAsync(touched, 1, kCount * sizeof(float), pair.other);
  cudaStreamSynchronize(pair.other);
}

/// Both send first, on one stream: neither ever receives.
void send_before_receive(const Pair& pair) {
  ncclSend(pair.x, kCount, ncclFloat32, 1 - pair.rank, pair.comm, pair.stream);
  pair.settle();
  ncclRecv(pair.y, kCount, ncclFloat32, 1 - pair.rank, pair.comm, pair.stream);
  pair.settle();
}

bool reads_early(const Pair& pair) {
  if (pair.rank == 1) sleep_a_little();
  pair.sum(pair.y, kCount);
  float* pinned = nullptr;
  cudaMallocHost(reinterpret_cast<void**>(&pinned), kCount * sizeof(float));
  pair.begin();
  cudaMemcpyAsync(pinned, pair.y, kCount * sizeof(float), cudaMemcpyDeviceToHost, pair.other);
  cudaStreamSynchronize(pair.other);
  const bool undefined = std::isnan(pinned[0]);
  pair.wait();
  return undefined;
}

/// The host waits in CUDA for what needs the other rank.
void wait_blindly(const Pair& pair) {
  pair.sum(pair.y, kCount);
  cudaEvent_t event = nullptr;
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  cudaEventRecord(event, pair.stream);
  cudaStreamWaitEvent(pair.other, event, 0);
  float value = 0.0F;
  if (pair.mode == "pageable_copy")
    cudaMemcpyAsync(&value, pair.y, sizeof(value), cudaMemcpyDeviceToHost, pair.other);
  if (pair.mode == "stream_wait") cudaStreamSynchronize(pair.other);
  if (pair.mode == "event_wait") cudaEventSynchronize(event);
}

void misuse(const Pair& pair) {
  const std::string_view mode = pair.mode;
  const bool first = pair.rank == 0;
  const auto broadcast = [&] {
    ncclBroadcast(pair.y, pair.y, kCount, ncclFloat32, 0, pair.comm, pair.stream);
    pair.settle();
  };
  if (mode == "in_progress") broadcast();
  if (mode == "counts") pair.sum(pair.y, first ? kCount : kCount - 1);
  if (mode == "types") pair.sum(pair.y, kCount, first ? ncclFloat32 : ncclInt32);
  if (mode == "order") {
    if (first) pair.sum(pair.y, kCount);
    broadcast();
    if (!first) pair.sum(pair.y, kCount);
  }
  if (mode == "source_changed" || mode == "target_written") touch_early(pair);
  if (mode == "pageable_copy" || mode == "stream_wait" || mode == "event_wait") wait_blindly(pair);
  if (mode == "two_streams")
    ncclAllReduce(pair.x, pair.y, kCount, ncclFloat32, ncclSum, pair.comm, pair.other);
  if (mode == "send_before_receive") send_before_receive(pair);
  if (mode == "no_finalize") ncclCommDestroy(pair.comm);
  if (mode == "ends_early") {
    if (first) pair.sum(pair.y, kCount);
    ncclCommFinalize(pair.comm);
    ncclCommDestroy(pair.comm);
  }
}

bool run(std::string_view mode) {
  const Pair pair(mode);
  std::vector<float> host(kCount);
  if (mode == "host_memory") return pair.sum(host.data(), kCount) == ncclInvalidArgument;
  if (mode == "too_long") return pair.sum(pair.y, kCount + 1) == ncclInvalidArgument;
  if (mode == "reads_early") return !reads_early(pair);
  misuse(pair);
  if (mode == "send_before_receive") cudaDeviceSynchronize();
  pair.wait();
  MPI_Barrier(MPI_COMM_WORLD);
  ncclCommFinalize(pair.comm);
  pair.settle();
  return ncclCommDestroy(pair.comm) == ncclSuccess;
}

}  // namespace

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const bool good = run(argc > 1 ? argv[1] : "");
  std::fprintf(stderr, "%s\n", good ? "all is well" : "a wrong result");
  if (good) MPI_Finalize();
  return good ? 0 : 1;
}

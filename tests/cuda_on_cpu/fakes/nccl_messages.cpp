#include <cstring>
#include <memory>

#include "fakes/nccl_state.hpp"
#include "runtime/failure.hpp"

namespace cuda_on_cpu {
namespace {

void check(int code, const char* call) {
  if (code != MPI_SUCCESS) fail("{} failed in the fake of NCCL", call);
}

int tag_of(const ncclComm& comm, Channel channel) {
  return static_cast<int>(static_cast<uint32_t>(channel) << 28U | comm.key);
}

}  // namespace

Outgoing::Outgoing(const ncclComm& comm, int world_rank, Channel channel, std::vector<std::byte> bytes,
                   bool synchronous)
    : bytes_(std::move(bytes)) {
  const auto send = synchronous ? MPI_Issend : MPI_Isend;
  check(send(bytes_.data(), static_cast<int>(bytes_.size()), MPI_BYTE, world_rank, tag_of(comm, channel),
             MPI_COMM_WORLD, &request_),
        "MPI_Isend");
}

bool Outgoing::over() {
  int done = 0;
  check(MPI_Test(&request_, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done != 0;
}

void send_and_forget(const ncclComm& comm, int world_rank, Channel channel, std::vector<std::byte> bytes) {
  static auto& sent = *new std::deque<Outgoing>;
  while (!sent.empty() && sent.front().over()) sent.pop_front();
  sent.emplace_back(comm, world_rank, channel, std::move(bytes), false);
}

bool take(const ncclComm& comm, int world_rank, Channel channel, std::vector<std::byte>& bytes) {
  int found = 0, size = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  check(MPI_Improbe(world_rank, tag_of(comm, channel), MPI_COMM_WORLD, &found, &message, &status),
        "MPI_Improbe");
  if (found == 0) return false;
  check(MPI_Get_count(&status, MPI_BYTE, &size), "MPI_Get_count");
  bytes.resize(static_cast<std::size_t>(size));
  check(MPI_Mrecv(bytes.data(), size, MPI_BYTE, &message, MPI_STATUS_IGNORE), "MPI_Mrecv");
  return true;
}

}  // namespace cuda_on_cpu

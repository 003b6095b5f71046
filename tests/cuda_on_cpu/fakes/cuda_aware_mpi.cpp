// What makes the machine's MPI a CUDA-aware one on the device that is not there: it says so, and device
// memory is open while it moves messages along, which it does inside its calls alone.
#include "fakes/cuda_aware_mpi.hpp"

#include <mpi.h>

#include <cstdlib>

#include "runtime/device_memory.hpp"

namespace cuda_on_cpu {
namespace {

int64_t num_device_messages = 0;

void count(const void* address) {
  if (device_memory().contains(address)) ++num_device_messages;
}

}  // namespace

int64_t device_messages() {
  return num_device_messages;
}

}  // namespace cuda_on_cpu

using cuda_on_cpu::DeviceMemory;

extern "C" {

int MPIX_Query_cuda_support() {
  return 1;
}

/// Otherwise another process reads this one's memory at any time, open or not.
int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);  // Open MPI 4
  setenv("OMPI_MCA_smsc", "none", 1);                             // 5
  return PMPI_Init_thread(argc, argv, required, provided);
}

int MPI_Isend(const void* data, int count, MPI_Datatype type, int destination, int tag, MPI_Comm comm,
              MPI_Request* request) {
  cuda_on_cpu::count(data);
  const DeviceMemory::Open open;
  return PMPI_Isend(data, count, type, destination, tag, comm, request);
}

int MPI_Irecv(void* data, int count, MPI_Datatype type, int source, int tag, MPI_Comm comm,
              MPI_Request* request) {
  cuda_on_cpu::count(data);
  const DeviceMemory::Open open;
  return PMPI_Irecv(data, count, type, source, tag, comm, request);
}

int MPI_Testsome(int count, MPI_Request* requests, int* num_done, int* indices, MPI_Status* statuses) {
  const DeviceMemory::Open open;
  return PMPI_Testsome(count, requests, num_done, indices, statuses);
}

int MPI_Iprobe(int source, int tag, MPI_Comm comm, int* flag, MPI_Status* status) {
  const DeviceMemory::Open open;
  return PMPI_Iprobe(source, tag, comm, flag, status);
}

// Calls that are given no device memory, and move along what was.

int MPI_Ibcast(void* data, int count, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request* request) {
  const DeviceMemory::Open open;
  return PMPI_Ibcast(data, count, type, root, comm, request);
}

int MPI_Ibarrier(MPI_Comm comm, MPI_Request* request) {
  const DeviceMemory::Open open;
  return PMPI_Ibarrier(comm, request);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm* part) {
  const DeviceMemory::Open open;
  return PMPI_Comm_split(comm, color, key, part);
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm* copy) {
  const DeviceMemory::Open open;
  return PMPI_Comm_dup(comm, copy);
}

int MPI_Comm_free(MPI_Comm* comm) {
  const DeviceMemory::Open open;
  return PMPI_Comm_free(comm);
}

}  // extern "C"

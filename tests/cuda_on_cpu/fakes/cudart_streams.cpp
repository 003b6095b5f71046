// CUDA's runtime: streams and events.
#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "fakes/runtime_state.hpp"
#include "runtime/options.hpp"
#include "runtime/streams.hpp"

using cuda_on_cpu::Operation;
using cuda_on_cpu::options;
using cuda_on_cpu::remember;
using cuda_on_cpu::streams;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  if (options().num_devices == 0) return remember(cudaErrorNoDevice);
  // A blocking stream waits for the default stream, which nobody may use.
  if (flags != cudaStreamNonBlocking) return remember(cudaErrorInvalidValue);
  *stream = streams().create();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (options().num_devices == 0) return remember(cudaErrorNoDevice);
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
  if (priority > 0 || priority < -5)
    return remember(cudaErrorInvalidValue);  // the real one clamps in silence
  return cudaStreamCreateWithFlags(stream, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  streams().destroy(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  streams().wait_for(stream);
  return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
  streams().asked(stream);
  return streams().idle(stream) ? cudaSuccess : remember(cudaErrorNotReady);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  if (options().num_devices == 0) return remember(cudaErrorNoDevice);
  *event = new CUevent_st;
  (*event)->timing = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  // Waits for it may still be queued: the real one lives until they are over, this one for ever.
  static auto& destroyed = *new std::vector<std::unique_ptr<CUevent_st>>;
  destroyed.emplace_back(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->stream = stream;
  Operation record(Operation::Kind::record);
  record.event = event;
  record.generation = ++event->recorded;
  streams().push(stream, std::move(record));
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  // An event that was never recorded is not waited for, there as here.
  if (event->recorded == 0) return cudaSuccess;
  Operation wait(Operation::Kind::wait);
  wait.event = event;
  wait.generation = event->recorded;
  wait.source = event->stream;
  streams().push(stream, std::move(wait));
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  streams().wait_for(*event);
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (event->reached != event->recorded) streams().asked(event->stream);
  return event->reached == event->recorded ? cudaSuccess : remember(cudaErrorNotReady);
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const CUevent_st* event : {begin, end}) {
    if (!event->timing || event->recorded == 0) return remember(cudaErrorInvalidValue);
    if (event->reached != event->recorded) return remember(cudaErrorNotReady);
  }
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

// Stream: the order in which ops run, and what they need to run: threads and scratch memory. On the CPU a
// stream is the calling thread and an op is done when its call returns; on a GPU it is a CUDA stream. Every
// op takes one.
#pragma once

#include <functional>
#include <memory>

#include "base/thread_pool.hpp"
#include "device/buffer.hpp"
#include "device/gemm_library.hpp"

struct CUstream_st;  // what CUDA's cudaStream_t points to

namespace red {

/// Whose attention runs on a GPU: our kernels, or cuDNN's where it takes the shape. The CPU has its own
/// alone.
enum class AttentionChoice { own, cudnn };

class Stream {
 public:
  /// scratch_bytes: temporaries of single ops (attention tiles, partial sums); ops release what they take.
  /// gemm: which library multiplies matrices; the first stream of a process loads and checks them.
  explicit Stream(int num_threads, std::size_t scratch_bytes = std::size_t{32} << 20,
                  GemmChoice gemm = GemmChoice::automatic);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  ThreadPool& threads() { return threads_; }
  Arena& scratch() { return scratch_; }
  /// Makes the scratch memory at least this large. Between ops only.
  void reserve_scratch(std::size_t num_bytes) {
    if (num_bytes > scratch_.capacity()) scratch_ = Arena("op scratch", num_bytes);
  }
  const GemmLibrary& gemm() const { return *gemm_; }
  /// Between ops only.
  void use_gemm(const GemmLibrary& library) { gemm_ = &library; }

  AttentionChoice attention() const { return attention_; }
  void use_attention(AttentionChoice choice) { attention_ = choice; }

  /// Runs task(i) for i in [0, num_tasks) on the stream's threads, calling the progress hook in between.
  void parallel_for(int64_t num_tasks, TaskRef task) { threads_.run(num_tasks, task); }

  /// Called between tasks of ops, on the stream's own thread: lets communication make progress.
  void set_progress_hook(std::function<void()> hook) { threads_.set_between_tasks(std::move(hook)); }

  /// Waits until all work given so far is done. On the CPU it always is.
  void synchronize();

  /// What the linked backend keeps for a stream; made when it is first asked for, so that a stream that only
  /// plans needs no GPU.
  struct Backend;
  Backend& backend();
  /// The CUDA stream to launch kernels on; null on the CPU.
  CUstream_st* handle();

 private:
  const GemmLibrary* gemm_;
  AttentionChoice attention_ = AttentionChoice::own;
  ThreadPool threads_;
  std::unique_ptr<Backend> backend_;
  Arena scratch_;
};

/// Host memory to device memory, in stream order. The host memory may be used again at once.
void copy_to_device(Stream& stream, void* device, const void* host, std::size_t num_bytes);
/// Device memory to host memory, in stream order: the bytes are there after stream.synchronize(). Only into a
/// HostBuffer without a wait: into other memory it waits for the stream first, as synchronize() does.
void copy_to_host(Stream& stream, void* host, const void* device, std::size_t num_bytes);
/// Within device memory, in stream order; the two do not overlap.
void copy_on_device(Stream& stream, void* to, const void* from, std::size_t num_bytes);
/// Zero bytes into device memory, in stream order.
void fill_zero(Stream& stream, void* device, std::size_t num_bytes);

/// Whether the address is of memory that host code must not touch. On the CPU never.
bool on_device(const void* address);

/// Waits until all streams have done their work: for tests, which use many. A step has no use for it.
void synchronize_device();

}  // namespace red

// Stream: the order in which ops run, and what they need to run: threads and scratch memory. On the CPU a
// stream is the calling thread and an op is done when its call returns; on a GPU it is a CUDA stream. Every
// op takes one.
#pragma once

#include <functional>

#include "base/thread_pool.hpp"
#include "device/buffer.hpp"
#include "device/gemm_library.hpp"

namespace red {

class Stream {
 public:
  /// scratch_bytes: temporaries of single ops (attention tiles, partial sums); ops release what they take.
  /// gemm: which library multiplies matrices; the first stream of a process loads and checks them.
  explicit Stream(int num_threads, std::size_t scratch_bytes = std::size_t{32} << 20,
                  GemmChoice gemm = GemmChoice::automatic)
      : gemm_(&gemm_library(gemm)), threads_(num_threads), scratch_("op scratch", scratch_bytes) {}

  ThreadPool& threads() { return threads_; }
  Arena& scratch() { return scratch_; }
  /// Makes the scratch memory at least this large. Between ops only.
  void reserve_scratch(std::size_t num_bytes) {
    if (num_bytes > scratch_.capacity()) scratch_ = Arena("op scratch", num_bytes);
  }
  const GemmLibrary& gemm() const { return *gemm_; }
  /// Between ops only.
  void use_gemm(const GemmLibrary& library) { gemm_ = &library; }

  /// Runs task(i) for i in [0, num_tasks) on the stream's threads, calling the progress hook in between.
  void parallel_for(int64_t num_tasks, TaskRef task) { threads_.run(num_tasks, task); }

  /// Called between tasks of ops, on the stream's own thread: lets communication make progress.
  void set_progress_hook(std::function<void()> hook) { threads_.set_between_tasks(std::move(hook)); }

  /// Waits until all work given so far is done. On the CPU it always is.
  void synchronize() {}

 private:
  const GemmLibrary* gemm_;
  ThreadPool threads_;
  Arena scratch_;
};

/// Host memory to device memory and back, in stream order. On the CPU both are plain copies.
void copy_to_device(Stream& stream, void* device, const void* host, std::size_t num_bytes);
void copy_to_host(Stream& stream, void* host, const void* device, std::size_t num_bytes);

}  // namespace red

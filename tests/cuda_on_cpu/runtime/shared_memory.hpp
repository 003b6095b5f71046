// Dynamic shared memory of a launch: exactly as long as was asked for, as AddressSanitizer sees it.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

class SharedMemory {
 public:
  explicit SharedMemory(std::size_t num_bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  unsigned char* data() const { return data_; }
  /// As a new block finds it: NaN, so that reading before writing shows.
  void forget();

 private:
  unsigned char* data_;
  std::size_t num_bytes_;
};

}  // namespace cuda_on_cpu

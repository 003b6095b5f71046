// The memory of the device that is not there: fresh memory is NaN, and the host can neither read nor write
// it, unless an operation of a stream runs. Pinned host memory is known by its address.
#pragma once

#include <cstddef>
#include <map>

namespace cuda_on_cpu {

class DeviceMemory {
 public:
  /// Aligned to 256 bytes; null when options().memory_bytes are used up.
  void* allocate(std::size_t num_bytes);
  /// False when it was not allocated here. The address is not given out again.
  bool free(void* address);
  /// Whether all the bytes are in one allocation.
  bool contains(const void* address, std::size_t num_bytes = 1) const;
  std::size_t used_bytes() const { return used_bytes_; }

  void* allocate_pinned(std::size_t num_bytes);
  bool free_pinned(void* address);
  bool is_pinned(const void* address) const;

  /// Lets everybody read and write it during its life.
  class Open {
   public:
    Open();
    ~Open();
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;
  };

 private:
  using Allocations = std::map<const std::byte*, std::size_t>;
  static Allocations::const_iterator holder(const Allocations& allocations, const void* address,
                                            std::size_t num_bytes);
  void protect(bool open) const;

  std::byte* base_ = nullptr;
  std::size_t top_ = 0;  ///< bytes of the address range given out so far
  std::size_t used_bytes_ = 0;
  int num_open_ = 0;
  Allocations allocations_, pinned_;
};

DeviceMemory& device_memory();

}  // namespace cuda_on_cpu

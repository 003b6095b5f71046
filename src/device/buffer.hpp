// Buffer owns device memory, HostBuffer host memory that a device can copy by itself; Arena hands out pieces
// of one buffer and takes them back in reverse order. Nothing else allocates tensor memory, and nothing
// allocates inside a training step.
#pragma once

#include <cstddef>
#include <string>
#include <utility>

#include "device/tensor.hpp"

namespace red {

/// Whether there is memory behind a size. Counted objects have every size and shape of real ones, and null
/// pointers: a plan is made of them, by the code that makes the real ones. They must not be touched.
enum class Memory { real, counted };

/// Where the linked backend takes memory from: zeroed, aligned to 64 bytes. Throws IoError naming the size
/// when there is none left.
struct DeviceSpace {
  static constexpr bool kDevice = true;
  static std::byte* allocate(std::size_t num_bytes);
  static void release(std::byte* data, std::size_t num_bytes) noexcept;
};
/// The host's, from which and to which a GPU copies by itself (pinned); on the CPU as device memory.
struct HostSpace {
  static constexpr bool kDevice = false;
  static std::byte* allocate(std::size_t num_bytes);
  static void release(std::byte* data, std::size_t num_bytes) noexcept;
};

/// Buffers made in this process so far, of either space; a test holds it constant over training steps.
std::size_t num_buffers_made();
/// The most bytes that buffers of device memory had together so far, to hold against a plan.
std::size_t peak_device_bytes();

namespace detail {
void count_made(std::size_t num_bytes, bool device);
void count_released(std::size_t num_bytes, bool device);
}  // namespace detail

/// Owns memory of a space. One of Memory::counted, or of no bytes, owns none.
template <class Space>
class BasicBuffer {
 public:
  BasicBuffer() = default;
  explicit BasicBuffer(std::size_t num_bytes, Memory memory = Memory::real) {
    if (num_bytes != 0 && memory == Memory::real) {
      data_ = Space::allocate(num_bytes);
      detail::count_made(num_bytes, Space::kDevice);
    }
    num_bytes_ = num_bytes;
  }
  ~BasicBuffer() {
    if (data_ == nullptr) return;
    Space::release(data_, num_bytes_);
    detail::count_released(num_bytes_, Space::kDevice);
  }
  BasicBuffer(BasicBuffer&& other) noexcept { swap(other); }
  BasicBuffer& operator=(BasicBuffer&& other) noexcept {
    swap(other);
    return *this;
  }

  std::byte* data() const { return data_; }
  std::size_t num_bytes() const {
    return num_bytes_;  // NOLINT(clang-analyzer-core.uninitialized.UndefReturn)
  }

 private:
  void swap(BasicBuffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(num_bytes_, other.num_bytes_);
  }
  std::byte* data_ = nullptr;
  std::size_t num_bytes_ = 0;
};

/// What ops work on.
using Buffer = BasicBuffer<DeviceSpace>;
/// What files, messages and copies from and to the device work on.
using HostBuffer = BasicBuffer<HostSpace>;

/// A stack of tensors over one buffer.
class Arena {
 public:
  Arena() = default;
  /// `name` and the capacity appear in the error when the arena overflows.
  Arena(std::string name, std::size_t num_bytes, Memory memory = Memory::real)
      : name_(std::move(name)), buffer_(num_bytes, memory) {}

  /// An arena without memory that only counts: whoever allocates from it learns what a real one must hold, by
  /// the very code that will allocate later. Its tensors must not be touched.
  static Arena counting() {
    Arena arena;
    arena.counting_ = true;
    return arena;
  }

  /// (rows, cols), contiguous, contents undefined. Throws LogicError when the plan was too small.
  template <class T = float>
  Tensor allocate(int64_t rows, int64_t cols) {
    return make_tensor(reinterpret_cast<T*>(take(static_cast<std::size_t>(rows * cols) * sizeof(T))), rows,
                       cols);
  }
  /// The same, of a type that is known at run time.
  Tensor allocate(int64_t rows, int64_t cols, DType dtype) {
    return {take(static_cast<std::size_t>(rows * cols) * size_of(dtype)), rows, cols, cols, dtype};
  }

  std::size_t used() const { return used_; }
  std::size_t peak() const { return peak_; }
  std::size_t capacity() const { return buffer_.num_bytes(); }
  /// Everything allocated after `used` had this value is free again.
  void release_to(std::size_t used) { used_ = used; }

  /// What allocate() takes from the arena for this many bytes.
  static constexpr std::size_t rounded(std::size_t num_bytes) { return (num_bytes + 63) / 64 * 64; }

 private:
  std::byte* take(std::size_t num_bytes);

  std::string name_;
  Buffer buffer_;
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
  bool counting_ = false;
};

/// Frees what was allocated from the arena during its life.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), used_(arena.used()) {}
  ~ArenaScope() { arena_.release_to(used_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  std::size_t used_;
};

}  // namespace red

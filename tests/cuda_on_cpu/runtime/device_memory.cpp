#include "runtime/device_memory.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "runtime/failure.hpp"
#include "runtime/options.hpp"
#include "runtime/poison.hpp"

namespace cuda_on_cpu {
namespace {

// Addresses, not memory: pages come when they are touched, and go when they are freed.
constexpr std::size_t kRangeBytes = std::size_t{256} << 30;
constexpr std::size_t kPageBytes = 4096;
// Large allocations lie on large pages: opening and closing all memory, which happens at every operation,
// then costs little.
constexpr std::size_t kLargePageBytes = std::size_t{2} << 20;

/// With a page behind it that belongs to nobody.
std::size_t with_margin(std::size_t num_bytes) {
  return (num_bytes + kPageBytes - 1) / kPageBytes * kPageBytes + kPageBytes;
}

}  // namespace

DeviceMemory& device_memory() {
  static auto& memory = *new DeviceMemory;  // outlives whatever frees its memory last
  return memory;
}

/// What is allocated, in stretches: what was freed between two that are far apart stays closed, and costs
/// nothing.
void DeviceMemory::protect(bool open) const {
  for (auto next = allocations_.begin(); next != allocations_.end();) {
    const std::byte *begin = next->first, *end = begin;
    for (; next != allocations_.end() && next->first <= end + kLargePageBytes; ++next)
      end = next->first + with_margin(next->second);
    if (mprotect(const_cast<std::byte*>(begin), static_cast<std::size_t>(end - begin),
                 open ? PROT_READ | PROT_WRITE : PROT_NONE) != 0)
      fail("mprotect of {} bytes failed", end - begin);
  }
}

DeviceMemory::Open::Open() {
  if (device_memory().num_open_++ == 0) device_memory().protect(true);
}

DeviceMemory::Open::~Open() {
  if (--device_memory().num_open_ == 0) device_memory().protect(false);
}

void* DeviceMemory::allocate(std::size_t num_bytes) {
  if (num_bytes > options().memory_bytes - used_bytes_) return nullptr;
  if (base_ == nullptr) {
    void* range = mmap(nullptr, kRangeBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) fail("no address range of {} bytes", kRangeBytes);
    madvise(range, kRangeBytes, MADV_HUGEPAGE);  // advice: without it everything is as right, and slower
    base_ = static_cast<std::byte*>(range) + kLargePageBytes -
            reinterpret_cast<uintptr_t>(range) % kLargePageBytes;
  }
  if (num_bytes >= kLargePageBytes / 2)
    top_ = (top_ + kLargePageBytes - 1) / kLargePageBytes * kLargePageBytes;
  if (top_ + with_margin(num_bytes) + kLargePageBytes > kRangeBytes)
    fail("more than {} bytes were allocated in all", kRangeBytes);
  std::byte* begin = base_ + top_;
  top_ += with_margin(num_bytes);
  {
    const Open open;
    allocations_[begin] = num_bytes;
    protect(true);  // of this one too
    std::memset(begin, 0xFF, num_bytes);
  }
  poison(begin + num_bytes, with_margin(num_bytes) - num_bytes);
  used_bytes_ += num_bytes;
  return begin;
}

bool DeviceMemory::free(void* address) {
  const auto found = allocations_.find(static_cast<std::byte*>(address));
  if (found == allocations_.end()) return false;
  const std::size_t num_bytes = found->second;
  if (num_open_ != 0) protect(false);  // an operation frees it: the stretches as they were opened
  madvise(address, num_bytes, MADV_DONTNEED);
  poison(address, num_bytes);
  used_bytes_ -= num_bytes;
  allocations_.erase(found);
  if (num_open_ != 0) protect(true);
  return true;
}

DeviceMemory::Allocations::const_iterator DeviceMemory::holder(const Allocations& allocations,
                                                               const void* address, std::size_t num_bytes) {
  const auto* begin = static_cast<const std::byte*>(address);
  auto next = allocations.upper_bound(begin);
  if (next == allocations.begin()) return allocations.end();
  --next;
  return begin + num_bytes <= next->first + next->second ? next : allocations.end();
}

bool DeviceMemory::contains(const void* address, std::size_t num_bytes) const {
  return holder(allocations_, address, num_bytes) != allocations_.end();
}

void* DeviceMemory::allocate_pinned(std::size_t num_bytes) {
  auto* begin = static_cast<std::byte*>(std::aligned_alloc(kPageBytes, with_margin(num_bytes)));
  if (begin == nullptr) return nullptr;
  poison(begin + num_bytes, with_margin(num_bytes) - num_bytes);
  pinned_[begin] = num_bytes;
  return begin;
}

bool DeviceMemory::free_pinned(void* address) {
  const auto found = pinned_.find(static_cast<std::byte*>(address));
  if (found == pinned_.end()) return false;
  unpoison(address, with_margin(found->second));
  std::free(address);
  pinned_.erase(found);
  return true;
}

bool DeviceMemory::is_pinned(const void* address) const {
  return holder(pinned_, address, 1) != pinned_.end();
}

}  // namespace cuda_on_cpu

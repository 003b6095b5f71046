#include "device/buffer.hpp"

#include <algorithm>
#include <atomic>

namespace red {
namespace {

std::atomic<std::size_t> num_made{0}, device_bytes{0}, device_peak{0};

}  // namespace

std::size_t num_buffers_made() {
  return num_made;
}

std::size_t peak_device_bytes() {
  return device_peak;
}

void detail::count_made(std::size_t num_bytes, bool device) {
  ++num_made;
  if (!device) return;
  const std::size_t now = device_bytes += num_bytes;
  std::size_t peak = device_peak;
  while (now > peak && !device_peak.compare_exchange_weak(peak, now)) {
  }
}

void detail::count_released(std::size_t num_bytes, bool device) {
  if (device) device_bytes -= num_bytes;
}

std::byte* Arena::take(std::size_t num_bytes) {
  const std::size_t end = used_ + rounded(num_bytes);
  RED_CHECK(counting_ || end <= capacity(), "arena {} is full: {} bytes asked, {} of {} used", name_,
            num_bytes, used_, capacity());
  std::byte* p = buffer_.data() == nullptr ? nullptr : buffer_.data() + used_;
  used_ = end;
  peak_ = std::max(peak_, end);
  return p;
}

}  // namespace red

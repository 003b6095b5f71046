#include <algorithm>

#include "device/buffer.hpp"

namespace red {

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

#include <algorithm>
#include <deque>
#include <vector>

#include "device/cuda_stream.hpp"
#include "device/work_timer.hpp"

namespace red {

struct WorkTimer::Impl {
  struct Stretch {
    int kind = 0;
    detail::CudaEvent begin{detail::Timing::on}, end{detail::Timing::on};
  };

  Stream& stream;
  std::vector<double> sums;
  std::deque<Stretch> stretches{};  ///< kept from step to step; the first `used` of them wait to be collected
  std::size_t used = 0;
};

WorkTimer::WorkTimer(Stream& stream, int num_kinds)
    : impl_(new Impl{stream, std::vector<double>(num_kinds)}) {}
WorkTimer::~WorkTimer() = default;

void WorkTimer::begin(int kind) {
  if (impl_->used == impl_->stretches.size()) impl_->stretches.emplace_back();
  Impl::Stretch& stretch = impl_->stretches[impl_->used];
  stretch.kind = kind;
  stretch.begin.record(impl_->stream.handle());
}

void WorkTimer::end() {
  impl_->stretches[impl_->used++].end.record(impl_->stream.handle());
}

std::span<const double> WorkTimer::collect() {
  std::fill(impl_->sums.begin(), impl_->sums.end(), 0.0);
  for (std::size_t i = 0; i < impl_->used; ++i) {
    const Impl::Stretch& stretch = impl_->stretches[i];
    impl_->sums[stretch.kind] += 1e-3 * stretch.end.milliseconds_since(stretch.begin);
  }
  impl_->used = 0;
  return impl_->sums;
}

}  // namespace red

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "device/stream_backend_cuda.hpp"
#include "device/work_timer.hpp"

namespace red {
namespace {

struct Stretch {
  int kind = 0;
  detail::CudaEvent begin{detail::Timing::on}, end{detail::Timing::on};
};

/// Their events are kept from step to step; the first `used` of them wait to be collected.
struct Stretches {
  std::deque<Stretch> all{};
  std::size_t used = 0;

  void begin(int kind, cudaStream_t stream) {
    if (used == all.size()) all.emplace_back();
    all[used].kind = kind;
    all[used].begin.record(stream);
  }
  void end(cudaStream_t stream) { all[used++].end.record(stream); }
  void collect(std::span<double> sums) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (std::size_t i = 0; i < used; ++i)
      sums[all[i].kind] += 1e-3 * all[i].end.milliseconds_since(all[i].begin);
    used = 0;
  }
};

}  // namespace

struct WorkTimer::Impl {
  Stream& stream;
  int none;  ///< the kind of a wait in no stretch
  std::vector<double> sums, waited;
  int kind = none;  ///< of the stretch that goes on
  Stretches work{}, waits{};
  bool started = false;
};

WorkTimer::WorkTimer(Stream& stream, int num_kinds)
    : impl_(new Impl{stream, num_kinds, std::vector<double>(num_kinds), std::vector<double>(num_kinds + 1)}) {
}

WorkTimer::~WorkTimer() {
  if (impl_->started && impl_->stream.backend().work_timer == this)
    impl_->stream.backend().work_timer = nullptr;
}

void WorkTimer::start() {
  impl_->started = true;
  impl_->kind = impl_->none;
  impl_->stream.backend().work_timer = this;
}

void WorkTimer::begin(int kind) {
  impl_->kind = kind;
  impl_->work.begin(kind, impl_->stream.handle());
}

void WorkTimer::end() {
  impl_->kind = impl_->none;
  impl_->work.end(impl_->stream.handle());
}

void WorkTimer::begin_wait() {
  impl_->waits.begin(impl_->kind, impl_->stream.handle());
}

void WorkTimer::end_wait() {
  impl_->waits.end(impl_->stream.handle());
}

std::span<const double> WorkTimer::collect() {
  if (std::exchange(impl_->started, false)) impl_->stream.backend().work_timer = nullptr;
  impl_->work.collect(impl_->sums);
  impl_->waits.collect(impl_->waited);
  for (std::size_t kind = 0; kind < impl_->sums.size(); ++kind) impl_->sums[kind] -= impl_->waited[kind];
  return impl_->sums;
}

std::span<const double> WorkTimer::waited() const {
  return impl_->waited;
}

}  // namespace red

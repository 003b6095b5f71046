#include "parallel/trace_log.hpp"

#include <utility>

namespace red::parallel {
namespace {

constexpr std::size_t kRoom = 65536;  ///< records before memory is taken within a step

}  // namespace

void TraceLog::start() {
  slices_.clear();
  transfers_.clear();
  slices_.reserve(kRoom);
  transfers_.reserve(kRoom);
  on_ = true;
}

void TraceLog::stop() {
  const double end = now();
  for (TraceTransfer& transfer : transfers_) {
    if (transfer.end == 0.0) transfer.end = end;
  }
  on_ = false;
}

int64_t TraceLog::begin_transfer(TraceTransfer transfer) {
  transfer.begin = now();
  transfers_.push_back(std::move(transfer));
  return static_cast<int64_t>(transfers_.size()) - 1;
}

void TraceLog::end_transfer(int64_t number) {
  if (on_) transfers_[static_cast<std::size_t>(number)].end = now();
}

}  // namespace red::parallel

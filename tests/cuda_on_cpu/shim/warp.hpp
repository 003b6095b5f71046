// Shuffles and votes of a warp.
#pragma once

#include <type_traits>

#include "shim/thread.hpp"

namespace cuda_on_cpu {

template <class T>
T shuffle(const Site& site, unsigned mask, T value, int source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 16);
  T result;
  warp_operation(site, WarpOperation::shuffle, mask, &value, &result, sizeof(T), source);
  return result;
}

/// The first lane of the group of `width` lanes that this one is in.
inline int first_of_group(int width) {
  return static_cast<int>(lane_id()) & ~(width - 1);
}

/// `lane` if it is in this lane's group, otherwise this lane.
inline int within_group(int lane, int width) {
  const int first = first_of_group(width);
  return lane >= first && lane < first + width ? lane : static_cast<int>(lane_id());
}

inline unsigned ballot(const Site& site, unsigned mask, bool vote) {
  unsigned result = 0;
  warp_operation(site, WarpOperation::ballot, mask, nullptr, &result, sizeof(result), vote ? 1 : 0);
  return result;
}

}  // namespace cuda_on_cpu

inline void __syncwarp(unsigned mask = 0xFFFFFFFFU,
                       const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  cuda_on_cpu::warp_operation(site, cuda_on_cpu::WarpOperation::sync, mask, nullptr, nullptr, 0, 0);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize,
              const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  const int lane = cuda_on_cpu::first_of_group(width) + (source & (width - 1));
  return cuda_on_cpu::shuffle(site, mask, value, lane);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  const int me = static_cast<int>(cuda_on_cpu::lane_id()), lane = me ^ lane_mask;
  // A lane of an earlier group may be read, one of a later group may not.
  const int source = lane < cuda_on_cpu::first_of_group(width) + width ? lane : me;
  return cuda_on_cpu::shuffle(site, mask, value, source);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  const int lane = static_cast<int>(cuda_on_cpu::lane_id() + delta);
  return cuda_on_cpu::shuffle(site, mask, value, cuda_on_cpu::within_group(lane, width));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  const int lane = static_cast<int>(cuda_on_cpu::lane_id()) - static_cast<int>(delta);
  return cuda_on_cpu::shuffle(site, mask, value, cuda_on_cpu::within_group(lane, width));
}

inline unsigned __ballot_sync(unsigned mask, int vote,
                              const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  return cuda_on_cpu::ballot(site, mask, vote != 0);
}
inline int __any_sync(unsigned mask, int vote, const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  return cuda_on_cpu::ballot(site, mask, vote != 0) != 0 ? 1 : 0;
}
inline int __all_sync(unsigned mask, int vote, const cuda_on_cpu::Site& site = cuda_on_cpu::Site::current()) {
  return cuda_on_cpu::ballot(site, mask, vote != 0) == mask ? 1 : 0;
}

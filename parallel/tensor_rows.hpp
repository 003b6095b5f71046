// What operations ask of their tensors, whoever carries them.
#pragma once

#include <cstddef>

#include "device/tensor.hpp"

namespace red::parallel {

inline std::size_t num_bytes(const Tensor& x) {
  return static_cast<std::size_t>(x.size()) * size_of(x.dtype);
}

inline void check_contiguous(const Tensor& x) {
  RED_CHECK(x.contiguous() && (!x.empty() || x.size() == 0), "({}, {}) with row stride {}", x.rows, x.cols,
            x.row_stride);
}

/// all is (size, chunk), one is (1, chunk) and either apart from all or its row `rank`. Returns that row.
inline std::byte* check_rows(const Tensor& all, const Tensor& one, int size, int rank) {
  check_contiguous(all);
  check_contiguous(one);
  RED_CHECK(all.dtype == one.dtype, "{} and {}", name_of(all.dtype), name_of(one.dtype));
  RED_CHECK(all.size() == one.size() * size, "({}, {}) is not {} times ({}, {})", all.rows, all.cols, size,
            one.rows, one.cols);
  std::byte* row = all.data + static_cast<std::size_t>(rank) * num_bytes(one);
  const bool apart = one.data + num_bytes(one) <= all.data || all.data + num_bytes(all) <= one.data;
  RED_CHECK(apart || one.data == row, "the chunk overlaps the rows, and is not row {}", rank);
  return row;
}

inline void check_peer(int peer, int rank, int size) {
  RED_CHECK(peer >= 0 && peer < size && peer != rank, "peer {}, own rank {} of {}", peer, rank, size);
}

}  // namespace red::parallel

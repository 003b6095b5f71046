#include "model/tensor_axis.hpp"

#include <algorithm>

namespace red::model {

int64_t TensorAxis::num_local(int64_t tokens) const {
  if (!sequence_parallel_) return tokens;
  return std::clamp<int64_t>(tokens - at_.rank * share(tokens), 0, share(tokens));
}

int64_t TensorAxis::first_local(int64_t tokens) const {
  return sequence_parallel_ ? std::min(tokens, at_.rank * share(tokens)) : 0;
}

Tensor TensorAxis::allocate_full(Arena& arena, int64_t tokens, int64_t cols, DType dtype) const {
  const int64_t rows = sequence_parallel_ ? share(tokens) * size() : tokens;
  return arena.allocate(rows, cols, dtype).row_range(0, tokens);
}

Tensor TensorAxis::local(const Tensor& full) const {
  if (!sequence_parallel_) return full;
  return full.row_range(first_local(full.rows), num_local(full.rows));
}

Tensor TensorAxis::by_rank(const Tensor& full) const {
  RED_CHECK(full.row_stride == full.cols, "({}, {}) with row stride {}", full.rows, full.cols,
            full.row_stride);
  const int64_t elements = share(full.rows) * full.cols;
  return {full.data, size(), elements, elements, full.dtype};
}

void TensorAxis::enter(const Tensor& full) const {
  if (sequence_parallel_) gather(by_rank(full), by_rank(full).row_range(at_.rank, 1));
}

void TensorAxis::leave(const Tensor& partial) const {
  if (!sequence_parallel_) return sum(partial);
  const Tensor parts = by_rank(partial);
  parallel::Request request = ranks_->reduce_scatter(parts.row_range(at_.rank, 1), parts);
  ranks_->wait(request, "reduce-scatter over the tensor axis");
}

void TensorAxis::sum(const Tensor& x) const {
  if (size() == 1 || x.size() == 0) return;
  parallel::Request request = ranks_->all_reduce(x, parallel::ReduceOp::sum);
  ranks_->wait(request, "all-reduce over the tensor axis");
}

void TensorAxis::gather(const Tensor& receive, const Tensor& send) const {
  if (size() == 1 || send.size() == 0) return;
  parallel::Request request = ranks_->all_gather(receive, send);
  ranks_->wait(request, "all-gather over the tensor axis");
}

}  // namespace red::model

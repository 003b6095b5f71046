// The tensor axis as the layers see it. Each of its ranks holds some heads, FFN columns and vocabulary rows;
// between such regions lies the residual stream, of which a rank holds all tokens, or with sequence
// parallelism its own share of them. enter() and leave() are the edges of a region, forward and backward
// alike (docs/parallelism.md):
//                           enter              leave
//   all tokens everywhere   nothing            all-reduce
//   own share of tokens     all-gather         reduce-scatter
// Both work in place on a tensor with a row for every token, of which local() are the rank's own rows.
#pragma once

#include "device/buffer.hpp"
#include "model/parameter.hpp"
#include "parallel/communicator.hpp"

namespace red::model {

class TensorAxis {
 public:
  /// One rank: nothing is ever sent.
  TensorAxis() = default;
  /// Sizes alone, for plans: whatever sends must not be called.
  TensorAxis(const TensorRank& at, bool sequence_parallel)
      : at_(at), sequence_parallel_(sequence_parallel && at.size > 1) {}
  /// `ranks` must outlive it.
  TensorAxis(parallel::Communicator& ranks, bool sequence_parallel)
      : TensorAxis(TensorRank{ranks.size(), ranks.rank()}, sequence_parallel) {
    ranks_ = &ranks;
  }

  const TensorRank& at() const { return at_; }
  int size() const { return at_.size; }
  bool sequence_parallel() const { return sequence_parallel_; }
  /// Seconds spent waiting in the edges so far.
  double wait_seconds() const { return ranks_ == nullptr ? 0.0 : ranks_->wait_seconds(); }

  /// Rows of the residual stream that this rank holds of so many tokens.
  int64_t num_local(int64_t tokens) const;
  /// The first of them.
  int64_t first_local(int64_t tokens) const;
  /// (tokens, cols) that enter() and leave() take: there is memory behind it for equal shares.
  Tensor allocate_full(Arena& arena, int64_t tokens, int64_t cols, DType dtype) const;
  /// The largest num_local() of any rank, for up to so many tokens.
  int64_t most_local(int64_t tokens) const { return sequence_parallel_ ? share(tokens) : tokens; }
  /// (num_local(tokens), cols); takes the same memory on every rank.
  Tensor allocate_local(Arena& arena, int64_t tokens, int64_t cols, DType dtype) const {
    return arena.allocate(most_local(tokens), cols, dtype).row_range(0, num_local(tokens));
  }
  /// This rank's rows of a tensor of all tokens.
  Tensor local(const Tensor& full) const;

  /// From own rows to all rows.
  void enter(const Tensor& full) const;
  /// Sums the ranks' parts; the result is in own rows.
  void leave(const Tensor& partial) const;
  /// Sums x over the ranks, in place, on all of them.
  void sum(const Tensor& x) const;
  /// receive (size, n) gets row r from rank r, whose send is (1, n).
  void gather(const Tensor& receive, const Tensor& send) const;

 private:
  int64_t share(int64_t tokens) const { return (tokens + size() - 1) / size(); }
  /// (size, elements of a share)
  Tensor by_rank(const Tensor& full) const;

  TensorRank at_;
  parallel::Communicator* ranks_ = nullptr;
  bool sequence_parallel_ = false;
};

}  // namespace red::model

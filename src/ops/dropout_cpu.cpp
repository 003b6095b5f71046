// Dropout on the CPU: masks are made where they are used, 64 columns at a time; Philox takes about as long as
// the memory.
#include <algorithm>

#include "ops/dropout.hpp"
#include "ops/row_blocks.hpp"
#include "ops/rows.hpp"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/dropout_cpu.cpp"
#include <hwy/foreach_target.h>  // compiles this file again for each target

#include "ops/simd-inl.hpp"

#ifndef RED_OPS_DROPOUT_CPU_ARGS
#define RED_OPS_DROPOUT_CPU_ARGS
namespace red::ops {
namespace {

constexpr int64_t kGroup = 64;   // columns whose masks are made together
constexpr int64_t kBlocks = 16;  // Philox blocks of a group

struct DropoutArgs {
  Dropout dropout;
  Rows y, x;
  DType dtype;
  int64_t cols, first_column;
  const uint64_t* row_keys;
};

}  // namespace
}  // namespace red::ops
#endif  // RED_OPS_DROPOUT_CPU_ARGS

HWY_BEFORE_NAMESPACE();
namespace red::ops {
namespace HWY_NAMESPACE {
namespace {

using WordTag = hn::ScalableTag<uint64_t>;  // a word of Philox in the lower half of each lane
using WordVec = hn::Vec<WordTag>;

HWY_ATTR WordVec product(WordVec x, uint32_t factor) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(WordTag(), hn::GetLane(x) * factor);
#else
  const hn::Repartition<uint32_t, WordTag> d32;
  return hn::MulEven(hn::BitCast(d32, x), hn::Set(d32, factor));
#endif
}

/// The words of as many counters as there are lanes (base/philox.hpp), those of one counter in one lane.
struct Words {
  WordVec x[4];
};
HWY_ATTR Words philox_lanes(uint64_t key, uint64_t low, WordVec high) {
  const WordTag d;
  const WordVec lower_half = hn::Set(d, 0xFFFFFFFFU);
  WordVec x0 = hn::Set(d, low & 0xFFFFFFFFU), x1 = hn::Set(d, low >> 32);
  WordVec x2 = hn::And(high, lower_half), x3 = hn::ShiftRight<32>(high);
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const WordVec p0 = product(x0, 0xD2511F53), p1 = product(x2, 0xCD9E8D57);
    x0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p1), x1), hn::Set(d, k0));
    x1 = hn::And(p1, lower_half);
    x2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(p0), x3), hn::Set(d, k1));
    x3 = hn::And(p0, lower_half);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{x0, x1, x2, x3}};
}

/// factors (64): 0 or 1 / (1 - rate) for the columns of group `group` of one row.
HWY_ATTR void make_factors(const Dropout& dropout, uint64_t row_key, uint64_t group, float* factors) {
  const WordTag d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN uint64_t words[4][kBlocks];
  for (int64_t i = 0; i < kBlocks; i += lanes) {
    const WordVec counters = hn::Add(hn::Iota(d, static_cast<uint64_t>(i)), hn::Set(d, group * kBlocks));
    const Words made = philox_lanes(dropout.key, row_key, counters);
    for (int w = 0; w < 4; ++w) hn::StoreU(made.x[w], d, words[w] + i);
  }
  const auto threshold = static_cast<uint64_t>(dropout.rate * 0x1.0p31F);
  const float kept = 1.0F / (1.0F - dropout.rate);
  for (int64_t column = 0; column < kGroup; ++column)
    factors[column] = words[column / kBlocks][column % kBlocks] >> 1 >= threshold ? kept : 0.0F;
}

/// Not a product where an element is dropped: infinity times zero would be no number.
template <class T>
HWY_ATTR void apply_factors(T* y, const T* x, const float* factors, int64_t n) {
  const FloatTag d;
  for_each_vector(n, [&](auto access, int64_t i) HWY_ATTR {
    const FloatVec factor = access.load(d, factors + i), value = access.load(d, x + i);
    access.store(hn::IfThenElseZero(hn::Gt(factor, hn::Zero(d)), hn::Mul(value, factor)), d, y + i);
  });
}

void dropout_rows(const DropoutArgs& a, int64_t begin, int64_t end) {
  with_element(a.dtype, [&](auto e) HWY_ATTR {
    using T = decltype(e);
    HWY_ALIGN float factors[kGroup];
    const int64_t last = a.first_column + a.cols;
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t column = a.first_column; column < last;) {
        const int64_t within = column % kGroup, n = std::min(kGroup - within, last - column);
        make_factors(a.dropout, a.row_keys[row], static_cast<uint64_t>(column / kGroup), factors);
        const int64_t at = column - a.first_column;
        apply_factors(a.y.at<T>(row, at), a.x.at<T>(row, at), factors + within, n);
        column += n;
      }
    }
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace red::ops
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace red::ops {
namespace {

HWY_EXPORT(dropout_rows);

}  // namespace

void dropout(Stream& stream, const Tensor& y, const Tensor& x, const uint64_t* row_keys, int64_t first_column,
             const Dropout& dropout) {
  RED_CHECK(y.rows == x.rows && y.cols == x.cols, "y ({}, {}) x ({}, {})", y.rows, y.cols, x.rows, x.cols);
  RED_CHECK(dropout.rate >= 0.0F && dropout.rate < 1.0F, "rate {}", dropout.rate);
  RED_CHECK(first_column >= 0, "first column {}", first_column);
  check_same_dtype(x, y);
  const DropoutArgs args{dropout, Rows(y), Rows(x), x.dtype, x.cols, first_column, row_keys};
  for_row_blocks(stream, x.rows, 4 * x.cols, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(dropout_rows)(args, begin, end);
  });
}

}  // namespace red::ops
#endif  // HWY_ONCE

// Private to attention on a GPU: a library's results against our own kernels'.
#pragma once

#include <cstdint>

#include "device/stream.hpp"

namespace red::ops {

struct AttentionDisagreement {
  double error = 0.0;     ///< of the worst result, relative in its norm
  const char* what = "";  ///< which one
};

/// Runs a small ragged problem of random values both ways, forward and backward, and waits for it. The
/// stream's choice must be the library. Nothing differs where the library refuses.
AttentionDisagreement attention_disagreement(Stream& stream, int64_t head_dim, bool causal);

}  // namespace red::ops

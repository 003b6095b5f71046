// Private to attention on a GPU: a library's results against our own kernels'.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "ops/attention_library.hpp"

namespace red::ops {

/// A library's passes.
struct AttentionPasses {
  std::function<decltype(attention_forward_by_library)> forward;
  std::function<decltype(attention_backward_by_library)> backward;
};

/// Runs a small ragged problem of random values both ways, forward and backward, and waits for it. Empty when
/// the library does both and differs by no more than rounding; otherwise what speaks against it, as "the
/// keys' gradient differs by 3.1e-01 of its norm". In the middle of a step: its memory is the stream's.
std::string attention_objection(Stream& stream, int64_t head_dim, bool causal,
                                const AttentionPasses& library);

}  // namespace red::ops

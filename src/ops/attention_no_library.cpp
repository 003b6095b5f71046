// Without cuDNN: attention is our own kernels' alone.
#include "ops/attention_library.hpp"

namespace red::ops {

bool has_attention_library() {
  return false;
}

std::string attention_library_version() {
  return "";
}

bool attention_forward_by_library(Stream&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                  const Tensor&, const AttentionLayout&, const AttentionMask&) {
  return false;
}

bool attention_backward_by_library(Stream&, const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                   const AttentionOutput&, const Tensor&, const Tensor&, const Tensor&,
                                   const Tensor&, const AttentionLayout&, const AttentionMask&) {
  return false;
}

int64_t attention_library_passes() {
  return 0;
}

std::string attention_library_refusal() {
  return "";
}

}  // namespace red::ops

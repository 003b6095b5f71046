// Runs a test's body once per arithmetic that bf16 is multiplied by on this machine: the one that is chosen,
// and on the CPU each lesser one that it has: dot products of pairs (AVX512_BF16) below AMX, fp32 below both.
#pragma once

#include <gtest/gtest.h>

#include <utility>

#include "device/stream.hpp"
#include "support/backend.hpp"

namespace red::test {

/// body(stream), with `threads` threads.
template <class Body>
void for_every_bf16_arithmetic(int threads, const Body& body) {
  Stream stream(threads);
  body(stream);
  if (!on_cpu()) return;
  GemmLibrary pairs = stream.gemm();
  if (std::exchange(pairs.amx, false)) {
    SCOPED_TRACE("by pairs");
    stream.use_gemm(pairs);
    body(stream);
  }
  if (pairs.has_bf16_arithmetic()) {
    SCOPED_TRACE("in fp32");
    stream.use_gemm(gemm_library(GemmChoice::plain));
    body(stream);
  }
}

}  // namespace red::test

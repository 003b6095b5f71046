// Private to device: the candidates behind gemm_library().
#pragma once

#include <optional>
#include <string>

#include "device/gemm_library.hpp"

namespace red::detail {

/// A library that could be loaded, or why it could not.
struct GemmCandidate {
  std::optional<GemmLibrary> gemm;
  std::string problem;
};

/// Loads on the first call; nothing has been checked yet.
GemmCandidate load_openblas();
GemmCandidate load_onednn();

/// Products of bf16 alone.
struct Bf16Products {
  Bf16GemmFunction gemm;
  RoundedGemmFunction rounded;
};

/// Ours by AMX; nothing where the processor or the kernel does not let us.
std::optional<Bf16Products> load_amx();

/// Ours by AVX512_BF16's dot products of pairs; nothing where the processor has none.
std::optional<Bf16Products> load_pairs();

/// As GemmFunction; never loaded, never wrong.
void plain_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                 const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

}  // namespace red::detail

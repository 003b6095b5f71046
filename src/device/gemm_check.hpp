// Private to device: whether a GEMM library can be trusted on this CPU, how fast it is, and which one to
// take.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "device/gemm_library.hpp"

namespace red::detail {

/// Compares products of small odd shapes with plain float64 loops: all transposes, padded rows, beta 0 and 1.
/// Empty when all are right, otherwise what is wrong. A library that dies of an illegal instruction or a bad
/// access in here is caught and reported like a wrong result.
std::string check_gemm(GemmFunction sgemm);
std::string check_gemm(Bf16GemmFunction bf16gemm);
std::string check_gemm(RoundedGemmFunction bf16gemm);

/// GFLOP/s of each for one tile of a larger product: the best of several, by the calling thread's CPU time
/// and in turns, so that other processes on the same cores and a changing clock count little.
std::vector<double> measure_gemms(std::span<const GemmFunction> libraries);

enum class Verdict { right, missing, wrong };

/// A library that was tried.
struct TriedGemm {
  GemmChoice choice = GemmChoice::plain;
  Verdict verdict = Verdict::missing;
  std::string problem;  ///< of one that is not right
  double gflops = 0.0;  ///< of one that was measured
};

/// The one to use, `plain` when none is right. An earlier one is kept unless a later one is clearly faster:
/// small differences are noise, and a run that is resumed should find the same library again.
GemmChoice choose_gemm(const std::vector<TriedGemm>& tried);

}  // namespace red::detail

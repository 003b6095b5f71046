#include "device/gemm_check.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>

#include "base/error.hpp"
#include "base/philox.hpp"
#include "device/crash_guard.hpp"

namespace red::detail {
namespace {

/// One product of T: operands in all four stored forms, and the right answer.
template <class T>
struct Problem {
  int64_t m, n, k;
  static constexpr int64_t kPadding = 3;
  std::vector<T> a[2], b[2];           ///< [transposed]
  std::vector<double> product, bound;  ///< (m, n): op(a) op(b), and the same of absolute values

  Problem(int64_t rows, int64_t cols, int64_t depth) : m(rows), n(cols), k(depth) {
    fill(a, m, k, 1);
    fill(b, k, n, 2);
    product.resize(static_cast<std::size_t>(m * n));
    bound.resize(product.size());
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t p = 0; p < k; ++p) {
        const double x = a[0][i * (k + kPadding) + p];
        const T* row = &b[0][p * (n + kPadding)];
        for (int64_t j = 0; j < n; ++j) {
          product[i * n + j] += x * row[j];
          bound[i * n + j] += std::abs(x * row[j]);
        }
      }
    }
  }

 private:
  static void fill(std::vector<T> (&x)[2], int64_t rows, int64_t cols, uint64_t seed) {
    x[0].resize(static_cast<std::size_t>(rows * (cols + kPadding)));
    x[1].resize(static_cast<std::size_t>(cols * (rows + kPadding)));
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        const float value = uniform_float(philox(seed, static_cast<uint64_t>(i * cols + j))[0]) - 0.5F;
        x[0][i * (cols + kPadding) + j] = x[1][j * (rows + kPadding) + i] = T(value);
      }
    }
  }
};

/// a and b of type T, c of type C.
template <class T, class C>
using AnyGemm = void (*)(bool, bool, int64_t, int64_t, int64_t, float, const T*, int64_t, const T*, int64_t,
                         float, C*, int64_t);

/// What is wrong with one product, or nothing.
template <class T, class C>
std::string check_product(const CrashGuard& guard, AnyGemm<T, C> gemm, const Problem<T>& problem, bool ta,
                          bool tb, float beta) {
  constexpr float alpha = 0.5F, old_value = 0.25F, untouched = -7.0F;
  const int64_t m = problem.m, n = problem.n, k = problem.k, ldc = n + Problem<T>::kPadding;
  std::vector<C> c(static_cast<std::size_t>(m * ldc), C(untouched));
  const float old = beta == 0.0F ? std::numeric_limits<float>::quiet_NaN() : old_value;
  for (int64_t i = 0; i < m; ++i) std::fill_n(&c[i * ldc], n, C(old));
  const T *a = problem.a[ta].data(), *b = problem.b[tb].data();
  const int64_t lda = (ta ? m : k) + Problem<T>::kPadding, ldb = (tb ? k : n) + Problem<T>::kPadding;
  const int signal =
      guard.run([&](int64_t) { gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c.data(), ldc); });
  if (signal != 0) return fmt::format("it crashes on this CPU: {}", strsignal(signal));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < ldc; ++j) {
      const float got = c[i * ldc + j];
      if (j >= n) {
        if (got != untouched) return fmt::format("it writes behind row {} of a ({}, {}) result", i, m, n);
        continue;
      }
      const double expected = alpha * problem.product[i * n + j] + (beta == 0.0F ? 0.0 : beta * old_value);
      // fp32 sums of k terms, in any order; fp32 and bf16 operands are as given. bf16 results are rounded, to
      // 8 bits.
      const double rounding = sizeof(C) == sizeof(bf16) ? std::abs(expected) / 256.0 : 0.0;
      const double allowed = 1e-6 * problem.bound[i * n + j] + 1e-6 + rounding;
      if (!(std::abs(got - expected) <= allowed)) {
        return fmt::format("({}, {}) x ({}, {}){}{}, beta {}: element ({}, {}) is {}, should be {}", m, k, k,
                           n, ta ? ", first transposed" : "", tb ? ", second transposed" : "", beta, i, j,
                           got, expected);
      }
    }
  }
  return "";
}

template <class T, class C>
std::string check_products(AnyGemm<T, C> gemm) {
  const CrashGuard guard("a GEMM library crashed while it was checked; set train.gemm to another one\n");
  // One element, less and more than vectors and register tiles, and a sum longer than a library's block.
  constexpr int64_t shapes[][3] = {{1, 1, 1},     {7, 13, 5},    {1, 33, 17},  {33, 1, 65},
                                   {67, 35, 130}, {50, 43, 601}, {530, 41, 33}};
  for (const auto& [m, n, k] : shapes) {
    const Problem<T> problem(m, n, k);
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        for (const float beta : {0.0F, 1.0F}) {
          std::string wrong = check_product<T, C>(guard, gemm, problem, ta, tb, beta);
          if (!wrong.empty()) return wrong;
        }
      }
    }
  }
  return "";
}

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace

std::string check_gemm(GemmFunction sgemm) {
  return check_products(sgemm);
}

std::string check_gemm(Bf16GemmFunction bf16gemm) {
  const std::string problem = check_products(bf16gemm);
  return problem.empty() ? "" : "bf16: " + problem;
}

std::string check_gemm(RoundedGemmFunction bf16gemm) {
  const std::string problem = check_products(bf16gemm);
  return problem.empty() ? "" : "bf16 results: " + problem;
}

std::vector<double> measure_gemms(std::span<const GemmFunction> libraries) {
  // As matmul calls it: a tile of larger matrices. oneDNN 2.6 takes half its speed on those alone.
  constexpr int64_t m = 256, n = 256, k = 256, ld = 2048;
  constexpr int rounds = 10;
  const std::vector<float> a(m * ld, 0.5F), b(k * ld, 0.25F);
  std::vector<float> c(m * ld);
  std::vector<double> best(libraries.size(), std::numeric_limits<double>::infinity());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < libraries.size(); ++i) {
      const double start = thread_seconds();
      libraries[i](false, false, m, n, k, 1.0F, a.data(), ld, b.data(), ld, 0.0F, c.data(), ld);
      best[i] = std::min(best[i], thread_seconds() - start);
    }
  }
  for (double& seconds : best) seconds = 2e-9 * m * n * k / std::max(seconds, 1e-9);
  return best;
}

GemmChoice choose_gemm(const std::vector<TriedGemm>& tried) {
  constexpr double clearly_faster = 1.25;
  const TriedGemm* best = nullptr;
  for (const TriedGemm& one : tried) {
    if (one.verdict != Verdict::right) continue;
    if (best == nullptr || one.gflops > clearly_faster * best->gflops) best = &one;
  }
  return best == nullptr ? GemmChoice::plain : best->choice;
}

}  // namespace red::detail

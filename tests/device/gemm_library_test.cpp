#include "device/gemm_library.hpp"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "device/crash_guard.hpp"
#include "device/gemm_check.hpp"
#include "device/gemm_libraries.hpp"
#include "device/stream.hpp"

namespace red {
namespace {

using detail::check_gemm;
using detail::choose_gemm;
using detail::TriedGemm;
using detail::Verdict;

#define RED_GEMM_PARAMETERS                                                                    \
  bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, \
      const float *b, int64_t ldb, float beta, float *c, int64_t ldc

// Libraries with one fault each.
void wrong_in_one_element(RED_GEMM_PARAMETERS) {
  detail::plain_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (m > 40 && n > 30) c[40 * ldc + 30] += 1e-3F;
}
void ignores_a_transpose(RED_GEMM_PARAMETERS) {
  detail::plain_sgemm(ta, tb && m < 64, m, n, k, alpha, a, lda, b, tb && m >= 64 ? n : ldb, beta, c, ldc);
}
void reads_c_with_beta_0(RED_GEMM_PARAMETERS) {
  const float old = c[0];
  detail::plain_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  c[0] += beta * old;
}
void writes_behind_rows(RED_GEMM_PARAMETERS) {
  detail::plain_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (ldc > n) c[n] = 0.0F;
}
void illegal_instruction(RED_GEMM_PARAMETERS) {
  detail::plain_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (k > 100) std::raise(SIGILL);
}
void bad_access(RED_GEMM_PARAMETERS) {
  detail::plain_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  if (k > 100) std::raise(SIGSEGV);
}

std::ptrdiff_t num_threads_now() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"),
                       std::filesystem::directory_iterator());
}

TEST(LoadGemm, StartsNoThreadAndLeavesTheEnvironment) {
  const char* const name = "OPENBLAS_NUM_THREADS";
  const std::string variable = std::getenv(name) == nullptr ? "unset" : std::getenv(name);
  const std::ptrdiff_t num_threads = num_threads_now();
  for (const detail::GemmCandidate& candidate : {detail::load_openblas(), detail::load_onednn()}) {
    if (candidate.gemm) check_gemm(candidate.gemm->sgemm);
  }
  EXPECT_EQ(num_threads_now(), num_threads);
  EXPECT_EQ(std::getenv(name) == nullptr ? "unset" : std::getenv(name), variable);
}

TEST(CheckGemm, PassesTheLibrariesOfThisMachine) {
  EXPECT_EQ(check_gemm(detail::plain_sgemm), "");
  int num_loaded = 0;
  for (const detail::GemmCandidate& candidate : {detail::load_openblas(), detail::load_onednn()}) {
    if (!candidate.gemm) continue;  // a machine may lack it
    ++num_loaded;
    EXPECT_EQ(check_gemm(candidate.gemm->sgemm), "") << candidate.gemm->description;
    EXPECT_FALSE(candidate.gemm->description.empty());
  }
  RecordProperty("libraries", num_loaded);
}

TEST(CheckGemm, FindsWrongResults) {
  EXPECT_NE(check_gemm(wrong_in_one_element).find("element (40, 30)"), std::string::npos);
  EXPECT_NE(check_gemm(ignores_a_transpose).find("second transposed"), std::string::npos);
  EXPECT_NE(check_gemm(reads_c_with_beta_0).find("is nan"), std::string::npos);
  EXPECT_NE(check_gemm(writes_behind_rows).find("writes behind row 0"), std::string::npos);
}

/// A bf16 product, made of the plain one.
void plain_bf16gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const bf16* a,
                    int64_t lda, const bf16* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const std::vector<float> x(a, a + (ta ? k : m) * lda), y(b, b + (tb ? n : k) * ldb);
  detail::plain_sgemm(ta, tb, m, n, k, alpha, x.data(), lda, y.data(), ldb, beta, c, ldc);
}
/// Sums of its own in bf16.
void rounding_bf16gemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const bf16* a,
                       int64_t lda, const bf16* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  plain_bf16gemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) c[i * ldc + j] = bf16(c[i * ldc + j]);
  }
}

TEST(CheckGemm, LooksAtBf16ProductsToo) {
  EXPECT_EQ(check_gemm(plain_bf16gemm), "");
  EXPECT_EQ(check_gemm(rounding_bf16gemm).find("bf16: "), 0U);
  const detail::GemmCandidate onednn = detail::load_onednn();
  // A machine may lack it, and most CPUs have no bf16 arithmetic.
  if (onednn.gemm && onednn.gemm->has_bf16_arithmetic()) {
    EXPECT_EQ(check_gemm(onednn.gemm->bf16gemm), "") << onednn.gemm->description;
  }
}

TEST(CheckGemm, FindsNothingWrongWithOurAmxProducts) {
  const auto amx = detail::load_amx();
  if (!amx) GTEST_SKIP() << "this processor has no AMX, or its kernel keeps it";
  EXPECT_EQ(check_gemm(amx->gemm), "");
  EXPECT_EQ(check_gemm(amx->rounded), "");
  EXPECT_TRUE(gemm_library().amx);
  for (const GemmChoice choice : {GemmChoice::openblas, GemmChoice::onednn}) {
    if (gemm_usable(choice)) {
      EXPECT_TRUE(gemm_library_with_bf16(choice).amx) << name_of(choice);
    }
  }
}

TEST(CheckGemm, FindsNothingWrongWithOurProductsByPairs) {
  const auto pairs = detail::load_pairs();
  if (!pairs) GTEST_SKIP() << "this processor has no AVX512_BF16";
  EXPECT_EQ(check_gemm(pairs->gemm), "");
  EXPECT_EQ(check_gemm(pairs->rounded), "");
}

/// Compares with sums in float64 of whole numbers: exact in any order, in fp32 too.
template <class T>
void expect_exact_products(void (*gemm)(bool, bool, int64_t, int64_t, int64_t, float, const bf16*, int64_t,
                                        const bf16*, int64_t, float, T*, int64_t)) {
  constexpr int64_t m = 530, n = 545,
                    k = 1030;  // more than a block along each dim, none a whole number of them
  const auto a = [](int64_t i, int64_t p) { return static_cast<float>((i * 31 + p * 17) % 5 - 2); };
  const auto b = [](int64_t p, int64_t j) { return static_cast<float>((p * 13 + j * 29) % 3 - 1); };
  std::vector<float> expected(m * n, 0.0F);
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t j = 0; j < n; ++j) expected[i * n + j] += a(i, p) * b(p, j);
    }
  }
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      std::vector<bf16> x(m * k), y(k * n);
      for (int64_t p = 0; p < k; ++p) {
        for (int64_t i = 0; i < m; ++i) x[ta ? p * m + i : i * k + p] = bf16(a(i, p));
        for (int64_t j = 0; j < n; ++j) y[tb ? j * k + p : p * n + j] = bf16(b(p, j));
      }
      std::vector<T> c(m * n, T(3.0F));
      gemm(ta, tb, m, n, k, 2.0F, x.data(), ta ? m : k, y.data(), tb ? k : n, 1.0F, c.data(), n);
      for (int64_t i = 0; i < m * n; ++i)
        ASSERT_EQ(static_cast<float>(c[i]), static_cast<float>(T(2.0F * expected[i] + 3.0F)))
            << ta << tb << ", row " << i / n << ", column " << i % n;
    }
  }
}

TEST(OurBf16Products, AreExactWhereSumsAreAcrossAllBlocks) {
  const auto amx = detail::load_amx(), pairs = detail::load_pairs();
  if (!amx && !pairs) GTEST_SKIP() << "this processor has no bf16 arithmetic";
  for (const auto& products : {amx, pairs}) {
    if (!products) continue;
    expect_exact_products(products->gemm);
    expect_exact_products(products->rounded);
  }
}

/// A library that takes as long as two or ten others.
template <int kTimes>
void slow_sgemm(bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
                const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  for (int i = 0; i < kTimes; ++i) detail::plain_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

TEST(MeasureGemms, TellsASlowLibraryFromAFastOne) {
  const GemmFunction libraries[] = {slow_sgemm<10>, slow_sgemm<2>, detail::plain_sgemm};
  const std::vector<double> gflops = detail::measure_gemms(libraries);
  ASSERT_EQ(gflops.size(), 3U);
  EXPECT_GT(gflops[0], 0.0);
  EXPECT_LT(gflops[0], gflops[1]);
  EXPECT_LT(gflops[1], gflops[2]);
}

TEST(GemmLibrary, AutoHasBf16ArithmeticWhereTheProcessorHas) {
  EXPECT_EQ(gemm_library().has_bf16_arithmetic(), detail::load_amx() || detail::load_pairs());
  EXPECT_FALSE(gemm_library(GemmChoice::plain).has_bf16_arithmetic());
}

TEST(CheckGemm, SurvivesCrashes) {
  for (int repeat = 0; repeat < 2; ++repeat) {
    EXPECT_NE(check_gemm(illegal_instruction).find("crashes on this CPU: Illegal instruction"),
              std::string::npos);
    EXPECT_NE(check_gemm(bad_access).find("crashes on this CPU: Segmentation fault"), std::string::npos);
  }
  EXPECT_EQ(check_gemm(detail::plain_sgemm), "");
}

TEST(CrashGuard, GivesTheHandlersBack) {
  struct sigaction before {
  }, after{};
  sigaction(SIGSEGV, nullptr, &before);
  {
    const detail::CrashGuard guard("");
    sigaction(SIGSEGV, nullptr, &after);
    EXPECT_NE(before.sa_handler, after.sa_handler);
    EXPECT_EQ(guard.run([](int64_t) {}), 0);
    EXPECT_EQ(guard.run([](int64_t) { std::raise(SIGBUS); }), SIGBUS);
    EXPECT_THROW(guard.run([](int64_t) { throw LogicError("inside"); }), LogicError);
  }
  sigaction(SIGSEGV, nullptr, &after);
  EXPECT_EQ(before.sa_handler, after.sa_handler);
}

TEST(CrashGuardDeathTest, ACrashElsewhereEndsTheProgramWithItsMessage) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const detail::CrashGuard guard("the library crashed\n");
        std::raise(SIGILL);
      },
      testing::KilledBySignal(SIGILL), "the library crashed");
}

TEST(ChooseGemm, ByResultFirstAndByClearlyMoreSpeed) {
  const TriedGemm openblas{GemmChoice::openblas, Verdict::right, "", 80.0};
  const TriedGemm fast{GemmChoice::onednn, Verdict::right, "", 120.0};
  const TriedGemm similar{GemmChoice::onednn, Verdict::right, "", 90.0};
  const TriedGemm wrong{GemmChoice::openblas, Verdict::wrong, "it crashes", 0.0};
  const TriedGemm missing{GemmChoice::onednn, Verdict::missing, "no file", 0.0};
  EXPECT_EQ(choose_gemm({openblas, similar}), GemmChoice::openblas);
  EXPECT_EQ(choose_gemm({openblas, fast}), GemmChoice::onednn);
  EXPECT_EQ(choose_gemm({wrong, similar}), GemmChoice::onednn);
  EXPECT_EQ(choose_gemm({openblas, missing}), GemmChoice::openblas);
  EXPECT_EQ(choose_gemm({wrong, missing}), GemmChoice::plain);
}

TEST(GemmLibrary, IsWhatWasAskedForOrAnError) {
  EXPECT_EQ(gemm_library(GemmChoice::plain).choice, GemmChoice::plain);
  for (const GemmChoice choice : {GemmChoice::openblas, GemmChoice::onednn}) {
    try {
      EXPECT_EQ(gemm_library(choice).choice, choice);
    } catch (const ConfigError& error) {  // a machine may lack it
      EXPECT_NE(std::string(error.what()).find("set train.gemm = auto"), std::string::npos) << error.what();
    }
  }
}

TEST(GemmLibrary, AutoStaysTheSame) {
  const GemmLibrary& once = gemm_library();
  EXPECT_NE(once.choice, GemmChoice::automatic);
  EXPECT_EQ(&gemm_library(), &once);
  Stream stream(1), plain(1, 0, GemmChoice::plain);
  EXPECT_EQ(&stream.gemm(), &once);
  EXPECT_EQ(plain.gemm().choice, GemmChoice::plain);
}

TEST(GemmChoice, NamesAreThoseOfTheConfiguration) {
  for (const GemmChoice choice :
       {GemmChoice::automatic, GemmChoice::openblas, GemmChoice::onednn, GemmChoice::plain}) {
    EXPECT_EQ(parse_gemm_choice(name_of(choice)), choice);
  }
  EXPECT_EQ(name_of(GemmChoice::automatic), "auto");
  EXPECT_THROW(parse_gemm_choice("mkl"), ConfigError);
}

}  // namespace
}  // namespace red

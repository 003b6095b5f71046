// Products of bf16 by AMX. oneDNN 2.6 has them too and takes 1.2 to 1.4 times as long for results in bf16,
// which it cannot round (docs/adr/0019).
#include "device/gemm_libraries.hpp"
#include "device/max_cpu.hpp"

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC 12's own AVX-512 header
#endif

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "device/amx_tiles.hpp"
#define RED_GEMM RED_AMX
#include "device/gemm_blocks-inl.hpp"

namespace red::detail {
namespace {

/// 1.3 MiB a thread, a fifth of it panels.
struct Amx {
  static constexpr int64_t kRows = 512, kCols = 512, kDepth = 256;
  static constexpr bool kAsksAhead = false;

  RED_AMX_INLINE static void copy_transposed(bf16* to, int64_t to_stride, const bf16* source, int64_t stride,
                                             int64_t rows, int64_t cols) {
    avx512::copy_transposed(to, to_stride, source, stride, rows, cols);
  }
  RED_AMX_INLINE static void multiply(float* c, int64_t c_stride, const bf16* a, int64_t a_stride, bool,
                                      const bf16* b, int64_t steps, avx512::Sum sum) {
    amx::multiply(c, c_stride, a, a_stride, b, steps, sum);
  }
};

template <class T>
RED_AMX void amx_gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                      const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float beta, T* c, int64_t ldc) {
  const amx::Tiles tiles;
  multiply_blocks<Amx>(Product<T>{transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc});
}

/// The processor has it, and the kernel lets this process use it.
bool amx_there() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if (!__builtin_cpu_supports("avx512bf16")) return false;
  constexpr unsigned amx_bf16 = 1U << 22U, amx_tile = 1U << 24U;
  if ((edx & amx_bf16) == 0 || (edx & amx_tile) == 0) return false;
  // Linux saves tiles only for processes that asked (Documentation/arch/x86/xstate.rst).
  constexpr long request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

}  // namespace

std::optional<Bf16Products> load_amx() {
  if (max_cpu() != MaxCpu::all || !amx_there()) return std::nullopt;
  return Bf16Products{amx_gemm<float>, amx_gemm<bf16>};
}

}  // namespace red::detail

#else

namespace red::detail {

std::optional<Bf16Products> load_amx() {
  return std::nullopt;
}

}  // namespace red::detail

#endif

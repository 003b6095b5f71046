// Private to the CUDA ops: tensor cores, as PTX's mma.sync, ldmatrix and cp.async (compute capability 8.0).
// Where kernels run on the CPU the same fragments are multiplied by plain loops, so that all but these
// instructions is tested there; which lane holds what is PTX ISA 8.7, "Matrix fragments for mma.m16n8k16".
// All lanes of a warp call these together. Shapes: a (16, 16) row-major, b (16, 8), c (16, 8); lane = 4 g + t
// holds c(g, 2 t ...) and c(g + 8, 2 t ...).
#pragma once

#include "ops/cuda_rows.cuh"

namespace red::ops {

/// Four 8 x 8 matrices of bf16: of each, lane 4 g + t holds elements (g, 2 t) and (g, 2 t + 1).
struct Fragment {
  uint32_t part[4];
};

/// Two values as bf16, the first in the lower half.
__device__ inline uint32_t pack(float low, float high) {
  return static_cast<uint32_t>(rounded_to<bf16>(low).bits) |
         static_cast<uint32_t>(rounded_to<bf16>(high).bits) << 16;
}

#ifndef CUDA_ON_CPU

__device__ inline void multiply_add(float (&c)[4], const Fragment& a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.part[0]), "r"(a.part[1]), "r"(a.part[2]), "r"(a.part[3]), "r"(b0), "r"(b1));
}

/// The matrices whose rows lie in shared memory where lanes 8 i ... 8 i + 7 say; each row is 16 bytes.
__device__ inline Fragment load_matrices(const bf16* row) {
  Fragment f;
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(f.part[0]), "=r"(f.part[1]), "=r"(f.part[2]), "=r"(f.part[3])
               : "r"(at)
               : "memory");
  return f;
}

/// The same, each matrix transposed.
__device__ inline Fragment load_transposed(const bf16* row) {
  Fragment f;
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(f.part[0]), "=r"(f.part[1]), "=r"(f.part[2]), "=r"(f.part[3])
               : "r"(at)
               : "memory");
  return f;
}

/// 16 bytes into shared memory while the thread goes on, or zeros: from is not read then.
__device__ inline void copy_16_bytes(bf16* to, const bf16* from, bool there) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}

/// What was copied so far is a group.
__device__ inline void end_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/// Waits until all but the last kGroups groups of this thread are there.
template <int kGroups>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

#else

namespace detail {

inline constexpr int kMostWarps = 8;

struct Operands {
  uint32_t a[4], b[2];
};

/// to (16) = what four lanes from `lane` on hold of one row of a or one column of b: each two and, 8 further
/// on, two.
inline void gather(float (&to)[16], const Operands* lanes, int lane, uint32_t (*part)(const Operands&, int)) {
  for (int k = 0; k < 16; k += 2) {
    const uint32_t pair = part(lanes[lane + k % 8 / 2], k / 8);
    for (int half = 0; half < 2; ++half) {
      bf16 value;
      value.bits = static_cast<uint16_t>(pair >> (16 * half));
      to[k + half] = value;
    }
  }
}

}  // namespace detail

inline void multiply_add(float (&c)[4], const Fragment& a, uint32_t b0, uint32_t b1) {
  using detail::Operands;
  __shared__ Operands of_warp[detail::kMostWarps][kWarp];
  Operands* lanes = of_warp[threadIdx.x / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = lane / 4, place = lane % 4;
  lanes[lane] = {{a.part[0], a.part[1], a.part[2], a.part[3]}, {b0, b1}};
  __syncwarp();
  float rows[2][16], cols[2][16];
  const auto upper = [](const Operands& o, int k) { return o.a[2 * k]; };
  const auto lower = [](const Operands& o, int k) { return o.a[2 * k + 1]; };
  const auto of_b = [](const Operands& o, int k) { return o.b[k]; };
  detail::gather(rows[0], lanes, 4 * group, upper);
  detail::gather(rows[1], lanes, 4 * group, lower);
  for (int i = 0; i < 2; ++i) detail::gather(cols[i], lanes, 4 * (2 * place + i), of_b);
  for (int i = 0; i < 4; ++i) {
    for (int k = 0; k < 16; ++k) c[i] += rows[i / 2][k] * cols[i % 2][k];
  }
  __syncwarp();
}

inline Fragment load_matrices_of(const bf16* row, bool transposed) {
  __shared__ const bf16* of_warp[detail::kMostWarps][kWarp];
  const bf16** rows = of_warp[threadIdx.x / kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, group = lane / 4, place = lane % 4;
  rows[lane] = row;
  __syncwarp();
  Fragment f;
  for (int i = 0; i < 4; ++i) {
    const bf16** matrix = rows + 8 * i;
    const bf16 low = transposed ? matrix[2 * place][group] : matrix[group][2 * place];
    const bf16 high = transposed ? matrix[2 * place + 1][group] : matrix[group][2 * place + 1];
    f.part[i] = static_cast<uint32_t>(low.bits) | static_cast<uint32_t>(high.bits) << 16;
  }
  __syncwarp();
  return f;
}

inline Fragment load_matrices(const bf16* row) {
  return load_matrices_of(row, false);
}
inline Fragment load_transposed(const bf16* row) {
  return load_matrices_of(row, true);
}

inline void copy_16_bytes(bf16* to, const bf16* from, bool there) {
  for (int i = 0; i < 8; ++i) to[i] = there ? from[i] : bf16();
}
inline void end_copies() {}
template <int kGroups>
inline void wait_for_copies() {}

#endif

}  // namespace red::ops

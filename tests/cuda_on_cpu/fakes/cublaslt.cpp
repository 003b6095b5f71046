// The part of cuBLASLt that the backend uses, declared by NVIDIA's own header; a call that is not here fails
// the link. It refuses whatever the real one refuses or might: types, shapes, leading dims, pointers that are
// not device memory or less aligned than the heuristic was told, a workspace that is too small, an algorithm
// for something else.
#include <cublasLt.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <initializer_list>

#include "fakes/cublaslt_state.hpp"
#include "runtime/device_memory.hpp"
#include "runtime/options.hpp"
#include "runtime/streams.hpp"

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace): a file of extern "C" functions

namespace {

constexpr uint64_t kMagic = 0xC0CC0C;
constexpr int kNumAlgorithms = 3;

static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t));
static_assert(sizeof(Product) <= sizeof(cublasLtMatmulDescOpaque_t));
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t));
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));

/// Opaque structs are bytes of ours; copied, since they are declared as arrays of integers.
template <class T, class Opaque>
T get(const Opaque* from) {
  T value;
  std::memcpy(static_cast<void*>(&value), from, sizeof(T));
  return value;
}

template <class T, class Opaque>
void set(Opaque* to, const T& value) {
  std::memcpy(to, &value, sizeof(T));
}

/// Sets a field from an attribute's bytes.
template <class Struct, class Field, class Opaque>
cublasStatus_t set_field(Opaque* object, Field Struct::*field, const void* bytes, std::size_t num_bytes) {
  if (num_bytes != sizeof(Field)) return CUBLAS_STATUS_INVALID_VALUE;
  auto value = get<Struct>(object);
  std::memcpy(&(value.*field), bytes, num_bytes);
  set(object, value);
  return CUBLAS_STATUS_SUCCESS;
}

struct Shape {
  Layout a, b, c, d;
};

bool type_known(const Layout& layout) {
  return layout.type == CUDA_R_16BF || layout.type == CUDA_R_32F;
}

cublasStatus_t check(const Product& product, const Shape& s) {
  const bool ta = product.transpose_a == CUBLAS_OP_T, tb = product.transpose_b == CUBLAS_OP_T;
  const uint64_t m = ta ? s.a.cols : s.a.rows, k = ta ? s.a.rows : s.a.cols;
  if (k != (tb ? s.b.cols : s.b.rows) || m == 0 || k == 0 || s.d.cols == 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (s.d.rows != m || s.d.cols != (tb ? s.b.rows : s.b.cols)) return CUBLAS_STATUS_INVALID_VALUE;
  if (s.c.rows != s.d.rows || s.c.cols != s.d.cols) return CUBLAS_STATUS_INVALID_VALUE;
  for (const Layout& layout : {s.a, s.b, s.c, s.d}) {
    if (layout.row_stride < static_cast<int64_t>(layout.rows)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!type_known(layout)) return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const bool tf32 = product.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  if (!tf32 && product.compute != CUBLAS_COMPUTE_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (tf32 && s.a.type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  // The table of supported types under cublasLtMatmul: a and b alike; fp32 gives fp32, bf16 either.
  if (product.scale_type != CUDA_R_32F || s.a.type != s.b.type || s.c.type != s.d.type)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (s.a.type == CUDA_R_32F && s.d.type != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

/// Whatever was in the workspace is lost; its ends stand for all of it, which would take longer than small
/// products.
void lose(void* workspace, std::size_t num_bytes) {
  const std::size_t end = std::min(num_bytes, std::size_t{16} << 10);
  if (end == 0) return;
  std::memset(workspace, 0xFF, end);
  std::memset(static_cast<std::byte*>(workspace) + num_bytes - end, 0xFF, end);
}

/// A matrix in device memory, every element of it, aligned as was promised.
bool usable(const void* data, const Layout& layout, uint32_t alignment) {
  const uint64_t size = layout.type == CUDA_R_16BF ? 2 : 4;
  const uint64_t elements = (layout.cols - 1) * static_cast<uint64_t>(layout.row_stride) + layout.rows;
  return device_memory().contains(data, elements * size) &&
         reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

}  // namespace

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = reinterpret_cast<cublasLtHandle_t>(new int(0));
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  cuda_on_cpu::streams().run_all();  // as the real one waits for the device
  delete reinterpret_cast<int*>(handle);
  return CUBLAS_STATUS_SUCCESS;
}

size_t cublasLtGetVersion() {
  return CUBLAS_VERSION;
}

const char* cublasLtGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "CUBLAS_STATUS_UNKNOWN";
  }
}

const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "the functionality is not supported" : "the fake refuses it";
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t, cudaDataType_t type,
                                                 uint64_t rows, uint64_t cols, int64_t row_stride) {
  set(layout, Layout{type, rows, cols, row_stride});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t product, size_t,
                                               cublasComputeType_t compute, cudaDataType_t scale_type) {
  set(product, Product{compute, scale_type});
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product,
                                              cublasLtMatmulDescAttributes_t attribute, const void* bytes,
                                              size_t num_bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set_field(product, &Product::transpose_a, bytes, num_bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set_field(product, &Product::transpose_b, bytes, num_bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t preference, size_t) {
  set(preference, Preference());
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* bytes, size_t num_bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return set_field(preference, &Preference::workspace_bytes, bytes, num_bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
      return set_field(preference, &Preference::reduction_schemes, bytes, num_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
      return set_field(preference, &Preference::alignment_a, bytes, num_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
      return set_field(preference, &Preference::alignment_b, bytes, num_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
      return set_field(preference, &Preference::alignment_c, bytes, num_bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return set_field(preference, &Preference::alignment_d, bytes, num_bytes);
    default:
      return CUBLAS_STATUS_NOT_SUPPORTED;
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  *count = 0;
  const Shape shape{get<Layout>(a), get<Layout>(b), get<Layout>(c), get<Layout>(d)};
  if (const cublasStatus_t status = check(get<Product>(product), shape)) return status;
  if (most < 1) return CUBLAS_STATUS_INVALID_VALUE;
  const auto p = get<Preference>(preference);
  constexpr uint32_t in_output_type =
      CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE;
  const bool rounds_parts = (p.reduction_schemes & in_output_type) != 0;
  for (int i = 0; i < most && i < kNumAlgorithms; ++i) {
    cublasLtMatmulHeuristicResult_t& result = results[i];
    std::memset(&result, 0, sizeof(result));
    result.state = CUBLAS_STATUS_SUCCESS;
    // Each wants another workspace, the first all of it.
    result.workspaceSize = p.workspace_bytes / static_cast<uint64_t>(i + 1);
    set(&result.algo, Algorithm{kMagic, static_cast<uint64_t>(i), result.workspaceSize, p.alignment_a,
                                p.alignment_b, p.alignment_c, p.alignment_d, rounds_parts});
    *count = i + 1;
  }
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algo, void* workspace, size_t workspace_bytes,
                              cudaStream_t stream) {
  const auto p = get<Product>(product);
  const Shape s{get<Layout>(a_layout), get<Layout>(b_layout), get<Layout>(c_layout), get<Layout>(d_layout)};
  if (const cublasStatus_t status = check(p, s)) return status;
  if (algo == nullptr) return CUBLAS_STATUS_INVALID_VALUE;  // the backend always chooses one
  const auto chosen = get<Algorithm>(algo);
  if (chosen.magic != kMagic || workspace_bytes < chosen.workspace_bytes) return CUBLAS_STATUS_INVALID_VALUE;
  // Host pointers: read at the call.
  const float alpha_value = *static_cast<const float*>(alpha), beta_value = *static_cast<const float*>(beta);
  if (!usable(a, s.a, chosen.alignment_a) || !usable(b, s.b, chosen.alignment_b) ||
      !usable(d, s.d, chosen.alignment_d)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (!usable(c, s.c, chosen.alignment_c)) return CUBLAS_STATUS_INVALID_VALUE;
  if (workspace_bytes != 0 && (!device_memory().contains(workspace, workspace_bytes) ||
                               reinterpret_cast<uintptr_t>(workspace) % 16 != 0)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  streams().push(stream, [=] {
    lose(workspace, workspace_bytes);
    if (options().fastest >= 0 && chosen.number != static_cast<uint64_t>(options().fastest))
      streams().pretend(std::chrono::seconds(1));
    multiply(p, chosen, alpha_value, {a, s.a}, {b, s.b}, beta_value, {c, s.c}, d, s.d);
  });
  return CUBLAS_STATUS_SUCCESS;
}

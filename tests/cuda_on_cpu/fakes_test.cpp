// What the fakes refuse, since the real libraries do or may: launches, products. And that a fiber keeps its
// own stack.
#include <cublasLt.h>
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "runtime/grid.hpp"
#include "runtime/options.hpp"
#include "shim/launch.hpp"
#include "shim/thread.hpp"

namespace cuda_on_cpu {
namespace {

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  return stream;
}

template <class T>
T* allocate(std::size_t count) {
  void* memory = nullptr;
  EXPECT_EQ(cudaMalloc(&memory, count * sizeof(T)), cudaSuccess);
  return static_cast<T*>(memory);
}

cudaError_t launch_error(dim3 grid, dim3 block, std::size_t shared_bytes, const void* kernel = nullptr) {
  const cudaStream_t stream = make_stream();
  launch({kernel, grid, block, shared_bytes}, stream, [] {});
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  return cudaGetLastError();
}

TEST(Launch, RefusesWhatAGpuDoes) {
  EXPECT_EQ(launch_error(1, 1024, 48 << 10), cudaSuccess);
  EXPECT_EQ(launch_error(0, 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_error(1, 0, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_error(1, 1025, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_error(1, dim3(1, 1, 65), 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_error(dim3(1, 65536), 32, 0), cudaErrorInvalidConfiguration);
  EXPECT_EQ(launch_error(dim3(1, 1, 65536), 32, 0), cudaErrorInvalidConfiguration);
}

TEST(Launch, WantsPermissionForMuchSharedMemory) {
  const auto* kernel = reinterpret_cast<const void*>(&launch_error);
  EXPECT_EQ(launch_error(1, 32, 49 << 10, kernel), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10), cudaSuccess);
  EXPECT_EQ(launch_error(1, 32, 64 << 10, kernel), cudaSuccess);
  EXPECT_EQ(launch_error(1, 32, 65 << 10, kernel), cudaErrorInvalidValue);
  EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 99 << 10), cudaSuccess);
  EXPECT_EQ(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (99 << 10) + 1),
            cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST(Grid, RunsEveryThreadOfEveryBlockOnce) {
  const cudaStream_t stream = make_stream();
  std::vector<int> runs(6 * 12);
  launch({nullptr, dim3(3, 2), dim3(4, 3), 0}, stream, [&] {
    const auto& thread = *current_thread;
    const unsigned block = thread.block_index.y * 3 + thread.block_index.x;
    ++runs[block * 12 + thread.thread_index.y * 4 + thread.thread_index.x];
  });
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(runs, std::vector<int>(6 * 12, 1));
}

/// c (m, n) = a (m, k) b (k, n), column-major, with one thing wrong at a time.
struct Product {
  uint64_t m = 12, n = 8, k = 4;
  int64_t lda = 12, ldb = 4, ldc = 12;
  cudaDataType_t type_a = CUDA_R_32F, type_b = CUDA_R_32F, type_c = CUDA_R_32F;
  cublasComputeType_t compute = CUBLAS_COMPUTE_32F;
  uint32_t told_alignment = 256;
  std::size_t offset_a = 0;
  std::size_t workspace_bytes = 1024, given_workspace_bytes = 1024;
  bool a_on_host = false, foreign_algorithm = false, workspace_on_host = false;
};

struct Statuses {
  cublasStatus_t heuristic, product;
};

Statuses multiply(const Product& p) {
  cublasLtHandle_t handle = nullptr;
  EXPECT_EQ(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
  cublasLtMatrixLayoutOpaque_t a, b, c;
  cublasLtMatmulDescOpaque_t product;
  cublasLtMatmulPreferenceOpaque_t preference;
  cublasLtMatrixLayoutInit(&a, p.type_a, p.m, p.k, p.lda);
  cublasLtMatrixLayoutInit(&b, p.type_b, p.k, p.n, p.ldb);
  cublasLtMatrixLayoutInit(&c, p.type_c, p.m, p.n, p.ldc);
  cublasLtMatmulDescInit(&product, p.compute, CUDA_R_32F);
  cublasLtMatmulPreferenceInit(&preference);
  cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &p.workspace_bytes, sizeof(p.workspace_bytes));
  cublasLtMatmulPreferenceSetAttribute(&preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                       &p.told_alignment, sizeof(p.told_alignment));
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  Statuses statuses{
      cublasLtMatmulAlgoGetHeuristic(handle, &product, &a, &b, &c, &c, &preference, 1, &result, &count),
      CUBLAS_STATUS_SUCCESS};
  if (p.foreign_algorithm) result.algo = {};
  static std::vector<float> host(1024);
  auto* device_a = allocate<std::byte>(4096);
  void* workspace = p.workspace_on_host ? static_cast<void*>(host.data()) : allocate<std::byte>(4096);
  auto* device_b = allocate<float>(1024);
  auto* device_c = allocate<float>(12 * 8);  // not more than it needs
  const void* first = p.a_on_host ? static_cast<const void*>(host.data()) : device_a + p.offset_a;
  const float alpha = 1.0F, beta = 0.0F;
  const cudaStream_t stream = make_stream();
  statuses.product = cublasLtMatmul(handle, &product, &alpha, first, &a, device_b, &b, &beta, device_c, &c,
                                    device_c, &c, &result.algo, workspace, p.given_workspace_bytes, stream);
  EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_EQ(cublasLtDestroy(handle), CUBLAS_STATUS_SUCCESS);
  return statuses;
}

void expect_refused(cublasStatus_t status, const Product& product) {
  EXPECT_EQ(multiply(product).product, status);
}

TEST(CublasLt, TakesWhatIsRight) {
  EXPECT_EQ(multiply({}).product, CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply({.told_alignment = 4, .offset_a = 4}).product, CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply({.type_a = CUDA_R_16BF, .type_b = CUDA_R_16BF}).product, CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(multiply({.compute = CUBLAS_COMPUTE_32F_FAST_TF32}).product, CUBLAS_STATUS_SUCCESS);
}

TEST(CublasLt, RefusesShapesAndTypes) {
  for (const Product& product :
       {Product{.lda = 11}, Product{.ldb = 3}, Product{.ldc = 11}, Product{.k = 0}}) {
    EXPECT_EQ(multiply(product).heuristic, CUBLAS_STATUS_INVALID_VALUE);
    expect_refused(CUBLAS_STATUS_INVALID_VALUE, product);
  }
  for (const Product& product :
       {Product{.type_a = CUDA_R_16BF}, Product{.type_c = CUDA_R_16BF}, Product{.type_c = CUDA_R_64F},
        Product{.compute = CUBLAS_COMPUTE_16F},
        Product{.type_a = CUDA_R_16BF, .type_b = CUDA_R_16BF, .compute = CUBLAS_COMPUTE_32F_FAST_TF32}}) {
    EXPECT_EQ(multiply(product).heuristic, CUBLAS_STATUS_NOT_SUPPORTED);
    expect_refused(CUBLAS_STATUS_NOT_SUPPORTED, product);
  }
}

TEST(CublasLt, RefusesPointersWorkspacesAndAlgorithms) {
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.a_on_host = true});
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.offset_a = 4});
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.told_alignment = 4, .offset_a = 4096 - 16});
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.ldc = 13});  // beyond the end of c
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.given_workspace_bytes = 512});
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.workspace_on_host = true});
  expect_refused(CUBLAS_STATUS_INVALID_VALUE, {.foreign_algorithm = true});
}

}  // namespace
}  // namespace cuda_on_cpu

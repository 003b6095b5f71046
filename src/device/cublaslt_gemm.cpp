#include "device/cublaslt_gemm.hpp"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/check.hpp"
#include "base/log.hpp"
#include "device/cublaslt_check.hpp"
#include "device/cuda_device.hpp"
#include "device/cuda_stream.hpp"
#include "device/gemm_measuring.hpp"

namespace red::detail {
namespace {

// What NVIDIA recommends for Hopper.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;
constexpr int kMostCandidates = 8, kRepeats = 3;

cudaDataType_t type_of(DType dtype) {
  return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F;
}

/// The largest power of two up to 256 that divides the address.
uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address);
  return static_cast<uint32_t>(std::min<uintptr_t>(256, bits & (~bits + 1)));
}

std::string library_and_gpu() {
  return fmt::format("cuBLASLt {}, {}, workspace {}", cublasLtGetVersion(), gpu_name(), kWorkspaceBytes);
}

cublasLtMatrixLayoutOpaque_t layout(DType dtype, int64_t rows, int64_t cols, int64_t ld) {
  cublasLtMatrixLayoutOpaque_t result;
  // Row-major (rows, cols) is column-major (cols, rows).
  RED_CUBLASLT_CHECK(cublasLtMatrixLayoutInit(&result, type_of(dtype), static_cast<uint64_t>(cols),
                                              static_cast<uint64_t>(rows), ld));
  return result;
}

template <class Value>
void set_preference(cublasLtMatmulPreferenceOpaque_t& preference,
                    cublasLtMatmulPreferenceAttributes_t attribute, Value value) {
  RED_CUBLASLT_CHECK(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)));
}

}  // namespace

void cublaslt_failed(cublasStatus_t status, const char* call, const char* file, int line) {
  const std::string what = fmt::format("{}:{}: {} failed: {} ({})", file, line, call,
                                       cublasLtGetStatusName(status), cublasLtGetStatusString(status));
  throw_if_gpu_lost(what);
  throw LogicError("{}", what);
}

/// The descriptors of a product. cuBLASLt is column-major: there c^T = op(b)^T op(a)^T, with b in the first
/// place.
struct CublasLtGemm::Call {
  explicit Call(const GemmProblem& p)
      : first(p.transpose_b ? layout(p.ab_dtype, p.n, p.k, p.ldb) : layout(p.ab_dtype, p.k, p.n, p.ldb)),
        second(p.transpose_a ? layout(p.ab_dtype, p.k, p.m, p.lda) : layout(p.ab_dtype, p.m, p.k, p.lda)),
        result(layout(p.c_dtype, p.m, p.n, p.ldc)),
        tf32(p.ab_dtype == DType::fp32 && p.fp32_products == Fp32Products::tf32) {
    RED_CUBLASLT_CHECK(cublasLtMatmulDescInit(
        &product, tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    const auto transpose = [&](cublasLtMatmulDescAttributes_t which, bool yes) {
      const int32_t value = yes ? CUBLAS_OP_T : CUBLAS_OP_N;
      RED_CUBLASLT_CHECK(cublasLtMatmulDescSetAttribute(&product, which, &value, sizeof(value)));
    };
    transpose(CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b);
    transpose(CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a);
  }

  GemmKey key(const GemmProblem& p) const {
    return {p.transpose_a ? 1 : 0,
            p.transpose_b ? 1 : 0,
            p.m,
            p.n,
            p.k,
            p.lda,
            p.ldb,
            p.ldc,
            static_cast<int64_t>(p.ab_dtype),
            static_cast<int64_t>(p.c_dtype),
            tf32 ? 1 : 0,
            p.beta == 0.0F ? 0 : 1,
            alignment_of(p.a),
            alignment_of(p.b),
            alignment_of(p.c)};
  }

  // cuBLASLt takes its descriptors by pointers to what it does not change.
  mutable cublasLtMatmulDescOpaque_t product;
  mutable cublasLtMatrixLayoutOpaque_t first, second, result;
  bool tf32;
};

CublasLtGemm::CublasLtGemm() : algorithms_({}, "") {}

CublasLtGemm::~CublasLtGemm() {
  if (handle_ != nullptr && cublasLtDestroy(handle_) != CUBLAS_STATUS_SUCCESS)
    log::rank_warning("cublasLtDestroy failed");
}

void CublasLtGemm::prepare() {
  RED_CUBLASLT_CHECK(cublasLtCreate(&handle_));
  workspace_ = Buffer(kWorkspaceBytes);
  const std::string made_for = library_and_gpu();
  // What is in the file was measured once.
  algorithms_ = GemmAlgorithms(choices_are_measured() ? gemm_algorithms_file(made_for) : "", made_for);
}

void CublasLtGemm::multiply(cudaStream_t stream, const GemmProblem& problem,
                            const std::function<void()>& await_stream) {
  RED_CHECK(problem.m > 0 && problem.n > 0 && problem.k > 0, "m {} n {} k {}", problem.m, problem.n,
            problem.k);
  if (handle_ == nullptr) prepare();
  const Call call(problem);
  const GemmKey key = call.key(problem);
  const GemmAlgorithm* algorithm = algorithms_.find(key);
  if (algorithm == nullptr) {
    await_stream();
    algorithms_.add(key, find(stream, problem, call));
    algorithm = algorithms_.find(key);
  }
  RED_CUBLASLT_CHECK(run(stream, problem, call, *algorithm));
}

cublasStatus_t CublasLtGemm::run(cudaStream_t stream, const GemmProblem& p, const Call& call,
                                 const GemmAlgorithm& algorithm) {
  return cublasLtMatmul(handle_, &call.product, &p.alpha, p.b, &call.first, p.a, &call.second, &p.beta, p.c,
                        &call.result, p.c, &call.result, &algorithm.algo, workspace_.data(),
                        workspace_.num_bytes(), stream);
}

std::vector<GemmAlgorithm> CublasLtGemm::proposals(const GemmProblem& p, const Call& call, int most) {
  cublasLtMatmulPreferenceOpaque_t preference;
  RED_CUBLASLT_CHECK(cublasLtMatmulPreferenceInit(&preference));
  set_preference(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, uint64_t{kWorkspaceBytes});
  // An algorithm that splits k may otherwise add the parts up in bf16. To split nothing is always allowed.
  if (p.c_dtype == DType::bf16)
    set_preference(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                   uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(p.b));
  set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(p.a));
  set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(p.c));
  set_preference(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(p.c));
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
  int count = 0;
  RED_CUBLASLT_CHECK(cublasLtMatmulAlgoGetHeuristic(handle_, &call.product, &call.first, &call.second,
                                                    &call.result, &call.result, &preference, most,
                                                    results.data(), &count));
  std::vector<GemmAlgorithm> candidates;
  for (int i = 0; i < count; ++i) {
    if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS) {
      const cublasLtMatmulHeuristicResult_t& result = results[static_cast<std::size_t>(i)];
      candidates.push_back({result.algo, result.workspaceSize});
    }
  }
  RED_CHECK(!candidates.empty(), "cuBLASLt has no algorithm for m {} n {} k {}, {} to {}, strides {} {} {}",
            p.m, p.n, p.k, name_of(p.ab_dtype), name_of(p.c_dtype), p.lda, p.ldb, p.ldc);
  return candidates;
}

GemmAlgorithm CublasLtGemm::find(cudaStream_t stream, const GemmProblem& p, const Call& call) {
  const std::vector<GemmAlgorithm> candidates = proposals(p, call, kMostCandidates);
  if (candidates.size() == 1 || !choices_are_measured()) return candidates.front();
  return fastest(stream, p, call, candidates);
}

GemmAlgorithm CublasLtGemm::fastest(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                                    const std::vector<GemmAlgorithm>& candidates) {
  // What c holds must not be added to several times: those products go to memory of their own.
  GemmProblem trial = problem;
  std::optional<StreamMemory> elsewhere;
  if (problem.beta != 0.0F) {
    elsewhere.emplace(stream, static_cast<std::size_t>(problem.m * problem.ldc) * size_of(problem.c_dtype));
    if (elsewhere->data() == nullptr) return candidates.front();  // no memory to try them in
    trial.c = elsewhere->data();
  }
  const GemmAlgorithm* best = nullptr;
  float best_milliseconds = std::numeric_limits<float>::infinity();
  for (const GemmAlgorithm& candidate : candidates) {
    if (run(stream, trial, call, candidate) != CUBLAS_STATUS_SUCCESS) continue;
    const float time = milliseconds(stream, trial, call, candidate, kRepeats);
    if (time < best_milliseconds) best = &candidate, best_milliseconds = time;
  }
  RED_CHECK(best != nullptr, "each of cuBLASLt's {} algorithms fails for m {} n {} k {}", candidates.size(),
            problem.m, problem.n, problem.k);
  return *best;
}

GemmSearch CublasLtGemm::search(cudaStream_t stream, const GemmProblem& problem) {
  constexpr int most = 200, repeats = 20;
  if (handle_ == nullptr) prepare();
  const Call call(problem);
  GemmSearch found{.seconds = std::numeric_limits<double>::infinity(), .tried = 0};
  for (const GemmAlgorithm& algorithm : proposals(problem, call, most)) {
    if (run(stream, problem, call, algorithm) != CUBLAS_STATUS_SUCCESS) continue;
    found.seconds = std::min(found.seconds, 1e-3 * milliseconds(stream, problem, call, algorithm, repeats));
    ++found.tried;
  }
  RED_CHECK(found.tried > 0, "each of cuBLASLt's algorithms fails for m {} n {} k {}", problem.m, problem.n,
            problem.k);
  return found;
}

float CublasLtGemm::milliseconds(cudaStream_t stream, const GemmProblem& problem, const Call& call,
                                 const GemmAlgorithm& algorithm, int repeats) {
  CudaEvent begin(Timing::on), end(Timing::on);
  begin.record(stream);
  for (int i = 0; i < repeats; ++i) RED_CUBLASLT_CHECK(run(stream, problem, call, algorithm));
  end.record(stream);
  end.synchronize();
  return end.milliseconds_since(begin) / static_cast<float>(repeats);
}

}  // namespace red::detail

// Loads OpenBLAS and oneDNN by name at run time and holds each to one thread per call.
#include <cblas.h>
#include <dlfcn.h>
#include <dnnl.h>

#include <cstdlib>
#include <initializer_list>
#include <type_traits>

#include "base/check.hpp"
#include "base/dtype.hpp"
#include "device/crash_guard.hpp"
#include "device/gemm_libraries.hpp"
#include "device/max_cpu.hpp"

namespace red::detail {
namespace {

/// A shared library, open for the life of the process, or the loader's own words.
struct LoadedLibrary {
  void* handle = nullptr;
  std::string problem;

  LoadedLibrary(std::initializer_list<const char*> names, const char* last_words) {
    max_cpu();  // sets variables that a library reads while it is loaded
    // The loader's locks are held in here: a crash can be announced, not survived.
    const CrashGuard guard(last_words);
    for (const char* name : names) {
      handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (handle != nullptr) {
        problem.clear();
        return;
      }
      if (!problem.empty()) problem += "; ";
      problem += dlerror();
    }
  }

  template <class Function>
  Function* find_if_there(const char* symbol) const {
    return handle == nullptr ? nullptr : reinterpret_cast<Function*>(dlsym(handle, symbol));
  }

  /// Its absence is a problem.
  template <class Function>
  Function* find(const char* symbol) {
    Function* address = find_if_there<Function>(symbol);
    if (handle != nullptr && address == nullptr && problem.empty())
      problem = fmt::format("it has no {}", symbol);
    return address;
  }
};

/// OpenBLAS starts a thread per core while it is loaded, which a machine with many cores and ranks cannot
/// bear; the variable stops that, and is taken back at once so that children do not inherit it.
class OneOpenBlasThread {
 public:
  OneOpenBlasThread() : ours_(std::getenv(kName) == nullptr) {
    if (ours_) setenv(kName, "1", 1);
  }
  ~OneOpenBlasThread() {
    if (ours_) unsetenv(kName);
  }
  OneOpenBlasThread(const OneOpenBlasThread&) = delete;
  OneOpenBlasThread& operator=(const OneOpenBlasThread&) = delete;

 private:
  static constexpr const char* kName = "OPENBLAS_NUM_THREADS";
  bool ours_;
};

LoadedLibrary load_openblas_library() {
  const OneOpenBlasThread while_loading;
  return {{"libopenblas.so.0", "libopenblas.so"},
          "OpenBLAS crashed while it was loaded; set train.gemm = onednn or plain\n"};
}

struct OpenBlas {
  LoadedLibrary shared = load_openblas_library();
  decltype(&cblas_sgemm) sgemm = shared.find<decltype(cblas_sgemm)>("cblas_sgemm");
  decltype(&openblas_set_num_threads) set_num_threads =
      shared.find<decltype(openblas_set_num_threads)>("openblas_set_num_threads");
  decltype(&openblas_get_config) get_config =
      shared.find<decltype(openblas_get_config)>("openblas_get_config");
};

const OpenBlas& openblas() {
  static const OpenBlas loaded;
  return loaded;
}

void openblas_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                    const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
                    int64_t ldc) {
  static const auto sgemm = openblas().sgemm;
  const auto narrow = [](int64_t x) {
    RED_CHECK(x >= 0 && x <= INT32_MAX, "dim {} is too large for OpenBLAS", x);
    return static_cast<blasint>(x);
  };
  sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, transpose_b ? CblasTrans : CblasNoTrans,
        narrow(m), narrow(n), narrow(k), alpha, a, narrow(lda), b, narrow(ldb), beta, c, narrow(ldc));
}

struct OneDnn {
  LoadedLibrary shared{{"libdnnl.so.3", "libdnnl.so.2", "libdnnl.so"},
                       "oneDNN crashed while it was loaded; set train.gemm = openblas or plain\n"};
  decltype(&dnnl_sgemm) sgemm = shared.find<decltype(dnnl_sgemm)>("dnnl_sgemm");
  /// Exported, though no header declares it. Row-major, as dnnl_sgemm.
  dnnl_status_t (*bf16gemm)(char transpose_a, char transpose_b, dnnl_dim_t m, dnnl_dim_t n, dnnl_dim_t k,
                            float alpha, const bf16* a, dnnl_dim_t lda, const bf16* b, dnnl_dim_t ldb,
                            float beta, float* c, dnnl_dim_t ldc) =
      shared.find_if_there<std::remove_pointer_t<decltype(bf16gemm)>>("dnnl_gemm_bf16bf16f32");
  decltype(&dnnl_get_effective_cpu_isa) cpu_isa =
      shared.find_if_there<decltype(dnnl_get_effective_cpu_isa)>("dnnl_get_effective_cpu_isa");
  decltype(&dnnl_version) version = shared.find<decltype(dnnl_version)>("dnnl_version");
  /// Of the OpenMP that it was built with; null with another threading.
  void (*set_num_threads)(int) = shared.find_if_there<void(int)>("omp_set_num_threads");
};

const OneDnn& onednn() {
  static const OneDnn loaded;
  return loaded;
}

/// The library's `function`, held to one thread.
template <class Function, class T>
void call_onednn(Function* function, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
                 float alpha, const T* a, int64_t lda, const T* b, int64_t ldb, float beta, float* c,
                 int64_t ldc) {
  static const auto set_num_threads = onednn().set_num_threads;
  // OpenMP keeps this per thread, and any library on the thread may have changed it.
  if (set_num_threads != nullptr) set_num_threads(1);
  const dnnl_status_t status = function(transpose_a ? 'T' : 'N', transpose_b ? 'T' : 'N', m, n, k, alpha, a,
                                        lda, b, ldb, beta, c, ldc);
  RED_CHECK(status == dnnl_success,
            "oneDNN's {} product: status {}, m {}, n {}, k {}, lda {}, ldb {}, ldc {}",
            name_of(dtype_of<T>()), static_cast<int>(status), m, n, k, lda, ldb, ldc);
}

void onednn_sgemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                  const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c,
                  int64_t ldc) {
  static const auto sgemm = onednn().sgemm;
  call_onednn(sgemm, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void onednn_bf16gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                     const bf16* a, int64_t lda, const bf16* b, int64_t ldb, float beta, float* c,
                     int64_t ldc) {
  static const auto bf16gemm = onednn().bf16gemm;
  call_onednn(bf16gemm, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

/// Without AVX512_BF16 it converts to fp32 as we can, or refuses.
bool onednn_has_bf16(const OneDnn& dnn) {
  return max_cpu() != MaxCpu::avx2 && dnn.bf16gemm != nullptr && dnn.cpu_isa != nullptr &&
         (dnn.cpu_isa() & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

}  // namespace

GemmCandidate load_openblas() {
  const OpenBlas& blas = openblas();
  if (!blas.shared.problem.empty() || blas.shared.handle == nullptr)
    return {std::nullopt, blas.shared.problem};
  blas.set_num_threads(1);
  return {GemmLibrary{GemmChoice::openblas, openblas_sgemm, blas.get_config()}, ""};
}

GemmCandidate load_onednn() {
  const OneDnn& dnn = onednn();
  if (!dnn.shared.problem.empty()) return {std::nullopt, dnn.shared.problem};
  const dnnl_version_t& version = *dnn.version();
  if (version.cpu_runtime == DNNL_RUNTIME_OMP ? dnn.set_num_threads == nullptr
                                              : version.cpu_runtime != DNNL_RUNTIME_SEQ) {
    return {std::nullopt, "it was built with threads of its own that cannot be held to one"};
  }
  return {GemmLibrary{GemmChoice::onednn, onednn_sgemm,
                      fmt::format("oneDNN {}.{}.{}", version.major, version.minor, version.patch),
                      onednn_has_bf16(dnn) ? onednn_bf16gemm : nullptr},
          ""};
}

}  // namespace red::detail

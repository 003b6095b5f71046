// Loads OpenBLAS and oneDNN by name at run time and holds each to one thread per call.
#include <cblas.h>
#include <dlfcn.h>
#include <dnnl.h>

#include <cstdlib>
#include <initializer_list>

#include "base/check.hpp"
#include "device/gemm_libraries.hpp"

namespace red::detail {
namespace {

/// A shared library, open for the life of the process, or the loader's own words.
struct LoadedLibrary {
  void* handle = nullptr;
  std::string problem;

  explicit LoadedLibrary(std::initializer_list<const char*> names) {
    for (const char* name : names) {
      handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (handle != nullptr) return;
      if (!problem.empty()) problem += "; ";
      problem += dlerror();
    }
  }

  template <class Function>
  Function* find(const char* symbol) {
    void* address = handle == nullptr ? nullptr : dlsym(handle, symbol);
    if (handle != nullptr && address == nullptr && problem.empty())
      problem = fmt::format("it has no {}", symbol);
    return reinterpret_cast<Function*>(address);
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

struct OpenBlas {
  OneOpenBlasThread one_thread;
  LoadedLibrary library{"libopenblas.so.0", "libopenblas.so"};
  decltype(&cblas_sgemm) sgemm = library.find<decltype(cblas_sgemm)>("cblas_sgemm");
  decltype(&openblas_set_num_threads) set_num_threads =
      library.find<decltype(openblas_set_num_threads)>("openblas_set_num_threads");
  decltype(&openblas_get_config) get_config =
      library.find<decltype(openblas_get_config)>("openblas_get_config");
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

}  // namespace

GemmCandidate load_openblas() {
  const OpenBlas& blas = openblas();
  if (!blas.library.problem.empty() || blas.library.handle == nullptr)
    return {std::nullopt, blas.library.problem};
  blas.set_num_threads(1);
  return {GemmLibrary{GemmChoice::openblas, openblas_sgemm, blas.get_config()}, ""};
}

GemmCandidate load_onednn() {
  return {std::nullopt, "not supported yet"};
}

}  // namespace red::detail

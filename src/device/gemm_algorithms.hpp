// Private to the CUDA backend: which of cuBLASLt's algorithms was fastest for a shape, in memory and in a
// file that later runs on the same kind of GPU with the same cuBLAS begin with: so they need not search, and
// their bits are the same.
//
// RED_GEMM_CACHE names the file, or says `off`; otherwise it is redllm/gemm_algorithms_..._.txt in
// XDG_CACHE_HOME or ~/.cache.
#pragma once

#include <cublasLt.h>

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace red::detail {

/// Everything that an algorithm depends on, in the order of a line of the file: transposes of a and b, m, n,
/// k, lda, ldb, ldc, dtypes of a and c, whether fp32 is TF32, whether c is added to, alignments of a, b and c
/// in bytes.
using GemmKey = std::array<int64_t, 15>;

struct GemmAlgorithm {
  cublasLtMatmulAlgo_t algo{};  ///< opaque; valid for one version of cuBLAS
  uint64_t workspace_bytes = 0;
};

class GemmAlgorithms {
 public:
  /// The file, and the line that says what its contents are for; another line there, and they are not used.
  /// An empty path: no file.
  GemmAlgorithms(std::filesystem::path file, std::string made_for);

  /// Null when the shape is new.
  const GemmAlgorithm* find(const GemmKey& key) const;
  /// Writes the file too. What other processes have added to it stays. A file that cannot be written costs a
  /// warning, once.
  void add(const GemmKey& key, const GemmAlgorithm& algorithm);
  std::size_t size() const { return algorithms_.size(); }

 private:
  void read();
  bool write() const;

  std::filesystem::path file_;
  std::string made_for_;
  std::map<GemmKey, GemmAlgorithm> algorithms_;
  bool warned_ = false;
};

/// As the environment has it; empty for none. `made_for` becomes part of the name.
std::filesystem::path gemm_algorithms_file(const std::string& made_for);

}  // namespace red::detail

#include "device/gemm_library.hpp"

#include <optional>
#include <utility>
#include <vector>

#include "base/check.hpp"
#include "base/error.hpp"
#include "base/log.hpp"
#include "device/gemm_check.hpp"
#include "device/gemm_libraries.hpp"
#include "device/gemm_measuring.hpp"
#include "device/max_cpu.hpp"

namespace red {
namespace {

constexpr std::pair<GemmChoice, std::string_view> kNames[] = {{GemmChoice::automatic, "auto"},
                                                              {GemmChoice::openblas, "openblas"},
                                                              {GemmChoice::onednn, "onednn"},
                                                              {GemmChoice::plain, "plain"}};

/// A library after its check. Made once: checking costs milliseconds, and what crashed must not be called
/// again.
struct Tried {
  GemmLibrary gemm;
  detail::TriedGemm result;
};

Tried try_library(GemmChoice choice, const detail::GemmCandidate& candidate) {
  if (!candidate.gemm) {
    return {{},
            {choice, detail::Verdict::missing, fmt::format("it cannot be loaded: {}", candidate.problem)}};
  }
  std::string problem = detail::check_gemm(candidate.gemm->sgemm);
  // What is wrong in one place is not trusted in another.
  if (problem.empty() && candidate.gemm->has_bf16_arithmetic())
    problem = detail::check_gemm(candidate.gemm->bf16gemm);
  return {*candidate.gemm,
          {choice, problem.empty() ? detail::Verdict::right : detail::Verdict::wrong, problem}};
}

const Tried& tried_openblas() {
  static const Tried tried = try_library(GemmChoice::openblas, detail::load_openblas());
  return tried;
}

const Tried& tried_onednn() {
  static const Tried tried = try_library(GemmChoice::onednn, detail::load_onednn());
  return tried;
}

const GemmLibrary& plain_library() {
  static const GemmLibrary plain{GemmChoice::plain, detail::plain_sgemm, "plain loops"};
  return plain;
}

const GemmLibrary& usable(const Tried& tried) {
  if (tried.result.verdict == detail::Verdict::right) return tried.gemm;
  throw ConfigError(
      "train.gemm = {}: this library cannot be used here: {}; set train.gemm = auto or another one",
      name_of(tried.result.choice), tried.result.problem);
}

/// Our products by one arithmetic, where the processor has it and they are right.
std::optional<detail::Bf16Products> checked(std::optional<detail::Bf16Products> ours, std::string_view name) {
  if (!ours) return ours;
  std::string problem = detail::check_gemm(ours->gemm);
  if (problem.empty()) problem = detail::check_gemm(ours->rounded);
  if (problem.empty()) return ours;
  log::rank_warning("matrix products go without {}: {}", name, problem);
  return std::nullopt;
}

/// `chosen`, with the best bf16 products there are: ours by AMX, by pairs, its own.
GemmLibrary with_bf16(GemmLibrary chosen) {
  static const std::optional<detail::Bf16Products> amx = checked(detail::load_amx(), "AMX");
  static const std::optional<detail::Bf16Products> pairs =
      amx ? std::nullopt : checked(detail::load_pairs(), "AVX512_BF16");
  const std::optional<detail::Bf16Products>& ours = amx ? amx : pairs;
  if (!ours) return chosen;
  chosen.bf16gemm = ours->gemm;
  chosen.rounded_bf16gemm = ours->rounded;
  chosen.amx = amx.has_value();
  chosen.description += amx ? "; bf16: AMX" : "; bf16: AVX512_BF16";
  return chosen;
}

GemmChoice choose_library() {
  const Tried& openblas = tried_openblas();
  const Tried& onednn = tried_onednn();
  std::vector<detail::TriedGemm> candidates = {openblas.result, onednn.result};
  const bool both_right =
      openblas.result.verdict == detail::Verdict::right && onednn.result.verdict == detail::Verdict::right;
  if (both_right && choices_are_measured()) {
    const GemmFunction both[] = {openblas.gemm.sgemm, onednn.gemm.sgemm};
    const std::vector<double> gflops = detail::measure_gemms(both);
    for (std::size_t i = 0; i < candidates.size(); ++i) candidates[i].gflops = gflops[i];
  }
  const GemmChoice best = detail::choose_gemm(candidates);
  for (const Tried* tried : {&openblas, &onednn}) {
    // A library that computes wrongly is news; one that is missing only where none is left.
    const detail::Verdict verdict = tried->result.verdict;
    if (verdict == detail::Verdict::wrong ||
        (verdict == detail::Verdict::missing && best == GemmChoice::plain)) {
      log::rank_warning("matrix products go without {}: {}", name_of(tried->result.choice),
                        tried->result.problem);
    }
  }
  if (best == GemmChoice::plain) {
    log::rank_warning(
        "matrix products use plain loops, several times slower than OpenBLAS (package libopenblas0)");
  }
  return best;
}

}  // namespace

bool GemmLibrary::has_bf16_arithmetic() const {
  return bf16gemm != nullptr;
}

std::string_view name_of(GemmChoice choice) {
  for (const auto& [value, name] : kNames) {
    if (value == choice) return name;
  }
  return "?";
}

GemmChoice parse_gemm_choice(std::string_view text) {
  for (const auto& [value, name] : kNames) {
    if (name == text) return value;
  }
  throw ConfigError(
      "train.gemm = {}: redllm multiplies on the CPU by auto, openblas, onednn or plain; tf32 is for "
      "redllm-cuda",
      text);
}

bool gemm_usable(GemmChoice choice) {
  if (choice == GemmChoice::openblas) return tried_openblas().result.verdict == detail::Verdict::right;
  if (choice == GemmChoice::onednn) return tried_onednn().result.verdict == detail::Verdict::right;
  return true;
}

const GemmLibrary& gemm_library(GemmChoice choice) {
  detail::max_cpu();  // before any op asks Highway
  switch (choice) {
    case GemmChoice::plain:
      return plain_library();
    case GemmChoice::openblas:
      return usable(tried_openblas());
    case GemmChoice::onednn:
      return usable(tried_onednn());
    case GemmChoice::automatic:
      break;
    case GemmChoice::tf32:
      RED_CHECK(false, "tf32 is not for the CPU");
  }
  static const GemmChoice best = choose_library();
  return gemm_library_with_bf16(best);
}

const GemmLibrary& gemm_library_with_bf16(GemmChoice choice) {
  if (choice == GemmChoice::openblas) {
    static const GemmLibrary openblas = with_bf16(usable(tried_openblas()));
    return openblas;
  }
  if (choice == GemmChoice::onednn) {
    static const GemmLibrary onednn = with_bf16(usable(tried_onednn()));
    return onednn;
  }
  if (choice == GemmChoice::plain) {
    static const GemmLibrary plain = with_bf16(plain_library());
    return plain;
  }
  return gemm_library(choice);
}

}  // namespace red

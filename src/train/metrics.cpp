#include "train/metrics.hpp"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/log.hpp"

namespace red::train {
namespace {

using Json = nlohmann::ordered_json;

Json number(double x) {
  return std::isfinite(x) ? Json(x) : Json(nullptr);
}

/// The step of a line, or nothing where the line is no metrics (cut off by a crash).
std::optional<int64_t> step_of(const std::string& line) {
  const Json json = Json::parse(line, nullptr, false);
  if (json.is_discarded() || !json.contains("step")) return std::nullopt;
  return json["step"].get<int64_t>();
}

/// Splits the file at the resumed step: what stays, and what is moved out of the way.
void cut_after(const std::filesystem::path& path, int64_t last_step) {
  std::ifstream in(path);
  if (!in) return;
  std::string kept, removed, line;
  while (std::getline(in, line)) {
    const auto step = step_of(line);
    (step && *step <= last_step ? kept : removed) += line + "\n";
  }
  in.close();
  if (removed.empty()) return;
  const auto write = [](const std::filesystem::path& to, const std::string& text, std::ios::openmode mode) {
    std::ofstream out(to, mode);
    out << text;
    out.close();
    if (!out) throw IoError("{}: cannot write: {}", to.string(), std::strerror(errno));
  };
  write(path.string() + fmt::format(".after-step-{}.removed", last_step), removed, std::ios::app);
  const std::filesystem::path aside = path.string() + ".partial";
  write(aside, kept, std::ios::trunc);
  std::filesystem::rename(aside, path);
}

}  // namespace

std::string to_json(const StepMetrics& m) {
  Json json;
  json["step"] = m.step;
  json["loss"] = number(m.result.loss);
  json["cross_entropy"] = number(m.result.cross_entropy);
  json["gradient_norm"] = number(m.result.gradient_norm);
  json["learning_rate"] = m.learning_rate;
  json["applied"] = m.result.applied;
  json["targets"] = m.result.targets;
  json["step_s"] = m.step_s;
  json["tokens_per_s"] = m.tokens_per_s;
  json["model_gflops_per_s"] = m.model_gflops_per_s;
  json["peak_share"] = m.peak_share > 0.0 ? Json(m.peak_share) : Json(nullptr);
  json["peak_rss_mib"] = m.peak_rss_mib;
  json["first_sample"] = m.first_sample;
  json["sample_digest"] = fmt::format("{:016x}", m.sample_digest);
  for (std::size_t i = 0; i < m.phase_s.size(); ++i)
    json["phase_s"][std::string(kPhaseNames[i])] = m.phase_s[i];
  return json.dump();
}

MetricsFile::MetricsFile(std::filesystem::path path, int64_t last_step) : path_(std::move(path)) {
  cut_after(path_, last_step);
  file_.reset(std::fopen(path_.c_str(), "a"));
  if (!file_) throw IoError("{}: cannot open: {}", path_.string(), std::strerror(errno));
}

void MetricsFile::write(const StepMetrics& metrics) {
  const std::string line = to_json(metrics) + "\n";
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size() || std::fflush(file_.get()) != 0) {
    log::warning("{}: cannot write metrics of step {}: {}", path_.string(), metrics.step,
                 std::strerror(errno));
  }
}

}  // namespace red::train

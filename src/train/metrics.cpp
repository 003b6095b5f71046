#include "train/metrics.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

namespace red::train {
namespace {

using Json = nlohmann::ordered_json;

Json number(double x) {
  return std::isfinite(x) ? Json(x) : Json(nullptr);
}
Json number(int64_t x) {
  return x;
}
Json number(const std::optional<double>& x) {
  return x ? number(*x) : Json(nullptr);
}

}  // namespace

std::string to_json(const StepMetrics& m) {
  Json json;
  json["step"] = m.step;
  json["wall_time"] = m.wall_time;
  visit_scalars(m, [&](const char*, const char* name, const auto& value) { json[name] = number(value); });
  if (!m.gpu_names.empty()) json["gpu_names"] = m.gpu_names;
  json["applied"] = m.result.applied;
  json["first_sample"] = m.first_sample;
  json["sample_digest"] = fmt::format("{:016x}", m.sample_digest);
  for (const auto& [source, items] : m.skipped_samples) json["skipped_samples"][source] = items;
  for (std::size_t i = 0; i < m.phase_s.size(); ++i)
    json["phase_s"][std::string(kPhaseNames[i])] = m.phase_s[i];
  for (const SlowRank& s : m.stragglers) {
    json["stragglers"].push_back({{"rank", s.rank},
                                  {"host", s.host},
                                  {"phase", s.phase},
                                  {"own_s", s.own_s},
                                  {"expected_s", s.expected_s}});
  }
  if (!m.rank_own_s.empty()) json["rank_own_s"] = m.rank_own_s;
  for (const ValidationLoss& v : m.validation) {
    json["validation"][v.source] = {{"loss", number(v.loss)},
                                    {"second_half_loss", number(v.second_half_loss)},
                                    {"targets", v.targets},
                                    {"windows", v.windows}};
  }
  if (!m.validation.empty()) json["validation_s"] = m.validation_s;
  return json.dump();
}

}  // namespace red::train

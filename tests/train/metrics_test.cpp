// The two written forms of a step's metrics hold the same numbers, and say what they do not know.
#include "train/metrics.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "train/event_file.hpp"
#include "train/step_metrics.hpp"

namespace red::train {
namespace {

using nlohmann::json;
using test::step_metrics;

/// Tag to value; groups of single values are not in the JSON.
std::map<std::string, double> flat(const json& object, const std::string& prefix = "") {
  std::map<std::string, double> result;
  for (const auto& [key, value] : object.items()) {
    if (value.is_object()) result.merge(flat(value, prefix + key + "/"));
    if (value.is_boolean()) result[prefix + key] = value.get<bool>() ? 1.0 : 0.0;
    if (value.is_number()) result[prefix + key] = value;
  }
  return result;
}

std::map<std::string, double> curves(const StepMetrics& metrics) {
  std::map<std::string, double> result;
  for (const auto& [tag, value] : scalar_points(metrics)) {
    const std::size_t slash = tag.find('/');
    const std::string group = tag.substr(0, slash);
    const bool plain = group == "train" || group == "speed" || group == "memory" || group == "gpu";
    EXPECT_TRUE(result.emplace(plain ? tag.substr(slash + 1) : tag, value).second) << tag;
  }
  return result;
}

TEST(MetricsTest, BothFormsHoldTheSameNumbers) {
  StepMetrics metrics = step_metrics(7);
  metrics.validation = {{"wiki", 12, 384, 2.5, 2.25}, {"books", 3, 96, 4.5, 4.25}};
  metrics.validation_s = 1.5;
  std::map<std::string, double> in_json = flat(json::parse(to_json(metrics)));
  // What names the point and its samples is no curve.
  for (const char* key : {"step", "wall_time", "first_sample"}) EXPECT_EQ(in_json.erase(key), 1U) << key;
  for (const char* source : {"wiki", "books"}) {
    for (const char* key : {"windows", "targets"})
      EXPECT_EQ(in_json.erase(std::string("validation/") + source + "/" + key), 1U) << key;
  }
  EXPECT_EQ(curves(metrics), in_json);
  for (const char* key : {"loss", "tokens_per_s", "model_gflops_per_s", "peak_share", "mfu", "peak_rss_mib",
                          "peak_device_mib", "gpu_sm_mhz", "gpu_memory_mhz", "gpu_temperature_c",
                          "gpu_power_w", "gpu_power_limit_w", "gpu_slowed_ranks", "gpu_ecc_errors",
                          "gpu_lost_ranks", "phase_s/backward", "validation/books/second_half_loss"})
    EXPECT_EQ(in_json.count(key), 1U) << key;
}

TEST(MetricsTest, JsonKeepsTypes) {
  const json line = json::parse(to_json(step_metrics(7)));
  EXPECT_EQ(line.at("step"), 7);
  EXPECT_TRUE(line.at("applied").is_boolean());
  EXPECT_TRUE(line.at("targets").is_number_integer());
  EXPECT_EQ(line.at("sample_digest"), "0000000000abcdef");
  EXPECT_FALSE(line.contains("validation"));
  EXPECT_FALSE(line.contains("gpu_names"));
  StepMetrics on_gpus = step_metrics(7);
  on_gpus.gpu_names = {"NVIDIA H100 80GB HBM3", "NVIDIA H200"};
  EXPECT_EQ(json::parse(to_json(on_gpus)).at("gpu_names"), json({"NVIDIA H100 80GB HBM3", "NVIDIA H200"}));
}

TEST(MetricsTest, SlowRanksAreNamedAndOthersAreNot) {
  StepMetrics metrics = step_metrics(40);
  EXPECT_FALSE(json::parse(to_json(metrics)).contains("stragglers"));
  metrics.stragglers = {{3, "n14", "backward", 0.5, 0.25}};
  metrics.rank_own_s = {0.25, 0.25, 0.25, 0.5};
  const json line = json::parse(to_json(metrics));
  EXPECT_EQ(line.at("stragglers"),
            json::parse(R"([{"rank": 3, "host": "n14", "phase": "backward", "own_s": 0.5,
                                                    "expected_s": 0.25}])"));
  EXPECT_EQ(line.at("rank_own_s").size(), 4U);
}

TEST(MetricsTest, WhatIsNotFiniteOrNotKnownIsNullInJson) {
  StepMetrics metrics = step_metrics(1);
  metrics.result.loss = std::numeric_limits<double>::quiet_NaN();
  metrics.result.gradient_norm = std::numeric_limits<double>::infinity();
  metrics.result.applied = false;
  metrics.peak_share = metrics.mfu = 0.0;
  metrics.gpu.reset();
  metrics.skipped_samples = {{"books", {3}}, {"wiki", {9, 1}}};
  const json line = json::parse(to_json(metrics));
  for (const char* key : {"loss", "gradient_norm", "peak_share", "mfu"})
    EXPECT_TRUE(line.at(key).is_null()) << key;
  EXPECT_EQ(line.at("skipped_samples"), json({{"books", {3}}, {"wiki", {9, 1}}}));
  const auto points = curves(metrics);
  EXPECT_TRUE(std::isnan(points.at("loss")));
  EXPECT_TRUE(std::isinf(points.at("gradient_norm")));
  EXPECT_EQ(points.at("applied"), 0.0);
  EXPECT_EQ(points.count("peak_share"), 0U);
  EXPECT_EQ(points.count("mfu"), 0U);
  EXPECT_FALSE(line.contains("gpu_sm_mhz"));  // of a CPU nothing is said
}

}  // namespace
}  // namespace red::train

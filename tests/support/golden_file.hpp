// Golden files (tests/golden) as plain structs. They hold what independent implementations computed in
// float64; tests compare the engine with them. Matrices are row-major, vectors have cols = 1.
// Every error names the file and the dataset or attribute in it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data/sample.hpp"
#include "model/model_config.hpp"
#include "optim/optimizer_config.hpp"

namespace red::test {

struct GoldenMatrix {
  int64_t rows = 0;
  int64_t cols = 1;
  std::vector<double> values;  ///< (rows, cols)
};
using GoldenTensors = std::map<std::string, GoldenMatrix>;  ///< by logical name

struct GoldenAttention {
  int64_t heads = 0;
  int64_t num_queries = 0;
  int64_t num_keys = 0;
  std::vector<double> values;  ///< (heads, queries, keys), probabilities
};

struct GoldenExample {
  data::Sample sample;                               ///< id = its number
  GoldenMatrix logits;                               ///< (T, V)
  std::vector<double> log_probability;               ///< (T), of the targets
  std::map<std::string, GoldenAttention> attention;  ///< by block, "decoder.layers.0.cross_attention"
};

/// One batch through the model: loss and gradients.
struct GoldenStep {
  std::string name;  ///< the file's stem
  model::ModelConfig model;
  double z_loss = 0;
  GoldenTensors parameters;
  GoldenTensors gradients;  ///< of `loss`
  std::vector<GoldenExample> examples;
  double loss = 0;
  double gradient_norm = 0;
  int64_t num_targets = 0;
};

/// A whole run of training steps.
struct GoldenTrajectory {
  std::string name;
  model::ModelConfig model;
  double z_loss = 0;
  optim::AdafactorConfig optimizer;
  optim::ScheduleConfig schedule;
  GoldenTensors parameters;                      ///< before step 1
  std::vector<std::vector<data::Sample>> steps;  ///< the batch of each step; ids count on over the run
  std::vector<double> loss, gradient_norm, learning_rate;  ///< (steps); norm before clipping
  GoldenTensors final_parameters;
};

/// T5X's own Adafactor in float32 on given gradients.
struct GoldenAdafactor {
  GoldenTensors initial;
  std::vector<double> rates;                   ///< learning rate of each step
  std::vector<GoldenTensors> gradients;        ///< of each step
  std::map<int, GoldenTensors> parameters;     ///< after a step, counted from 1; not after every step
  std::map<std::string, GoldenTensors> state;  ///< after the last step, by parameter: "v", or "v_row" and
                                               ///< "v_col": means over the longer and over the shorter dim
                                               ///< (square: v_row over the last dim)
};

/// REDLLM_GOLDEN_DIR, or tests/golden of the source tree.
std::filesystem::path golden_dir();

/// Files of golden_dir() whose attribute `golden` is kind ("step", "trajectory", "adafactor"), by name; of
/// these the one that REDLLM_GOLDEN_FILE names without its suffix, if it is set.
/// Throws DataError when the folder has no such file.
std::vector<std::filesystem::path> golden_files(const std::string& kind);

GoldenStep read_golden_step(const std::filesystem::path& file);
GoldenTrajectory read_golden_trajectory(const std::filesystem::path& file);
/// By mode: "factored", "unfactored", ...
std::map<std::string, GoldenAdafactor> read_golden_adafactor(const std::filesystem::path& file);

}  // namespace red::test

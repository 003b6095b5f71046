#include "support/golden_file.hpp"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "checkpoint/h5.hpp"

namespace red::test {
namespace {

namespace h5 = checkpoint::h5;

/// An open golden file, or a group in it: all paths are from the file's root.
struct GoldenFile {
  std::filesystem::path path;
  h5::File file;

  GoldenFile(const std::filesystem::path& file_path, const std::string& kind)
      : path(file_path), file(h5::open_file(file_path)) {
    const std::string found = text("golden");
    if (found != kind) throw DataError("{}: holds a golden '{}', not a '{}'", path.string(), found, kind);
  }

  std::string text(const std::string& attribute) const {
    return h5::read_text(file.get(), attribute, path.string());
  }
  std::vector<std::string> names(const std::string& group) const {
    return h5::member_names(file.get(), group);
  }
  bool has(const std::string& dataset) const { return h5::contains(file.get(), dataset); }

  std::vector<int64_t> shape(const std::string& dataset, std::size_t num_dims) const {
    const std::string what = path.string() + ": dataset '" + dataset + "'";
    std::vector<int64_t> found = h5::shape_of(h5::open_dataset(file.get(), dataset).get(), what);
    if (found.size() != num_dims) throw DataError("{} has {} dims, not {}", what, found.size(), num_dims);
    return found;
  }
  std::vector<double> doubles(const std::string& dataset) const {
    return h5::read_all<double>(file.get(), dataset);
  }
  std::vector<int32_t> ids(const std::string& dataset) const {
    return h5::read_all<int32_t>(file.get(), dataset);
  }

  GoldenMatrix matrix(const std::string& dataset) const {
    const std::vector<int64_t> found =
        h5::shape_of(h5::open_dataset(file.get(), dataset).get(), path.string() + ": " + dataset);
    if (found.empty() || found.size() > 2)
      throw DataError("{}: dataset '{}' is neither vector nor matrix", path.string(), dataset);
    return {found[0], found.size() == 2 ? found[1] : 1, doubles(dataset)};
  }
  GoldenTensors tensors(const std::string& group) const {
    GoldenTensors result;
    for (const std::string& name : names(group)) result[name] = matrix(group + "/" + name);
    return result;
  }

  nlohmann::json json(const std::string& attribute) const {
    try {
      return nlohmann::json::parse(text(attribute));
    } catch (const nlohmann::json::exception& error) {
      throw DataError("{}: attribute '{}' is no JSON: {}", path.string(), attribute, error.what());
    }
  }
};

/// One value of a JSON attribute.
template <class T>
T value_of(const GoldenFile& golden, const nlohmann::json& json, const std::string& attribute,
           const std::string& key) {
  try {
    return json.at(key).get<T>();
  } catch (const nlohmann::json::exception& error) {
    throw DataError("{}: attribute '{}', key '{}': {}", golden.path.string(), attribute, key, error.what());
  }
}

model::ModelConfig read_model(const GoldenFile& golden, double& z_loss) {
  const nlohmann::json json = golden.json("config");
  const auto count = [&](const char* key) { return value_of<int64_t>(golden, json, "config", key); };
  model::ModelConfig config;
  const std::string kind = value_of<std::string>(golden, json, "config", "kind");
  if (kind != "red" && kind != "dec") throw DataError("{}: config.kind = '{}'", golden.path.string(), kind);
  config.name = golden.path.stem().string();
  config.kind = kind == "red" ? model::Kind::red : model::Kind::dec;
  config.vocab_size = count("vocab");
  config.d_model = count("d");
  config.d_ff = count("f");
  config.num_heads = count("heads");
  config.head_dim = count("d_h");
  config.encoder_layers = count("encoder_layers");
  config.decoder_layers = count("decoder_layers");
  config.rope_base = value_of<double>(golden, json, "config", "rope_base");
  config.attention_output_norm =
      config.has_encoder() ? model::AttentionOutputNorm::head : model::AttentionOutputNorm::none;
  z_loss = value_of<double>(golden, json, "config", "z_loss");
  return config;
}

data::Sample read_sample(const GoldenFile& golden, const std::string& group, uint64_t id) {
  const auto optional_ids = [&](const char* name) {
    const std::string dataset = group + "/" + name;
    return golden.has(dataset) ? golden.ids(dataset) : std::vector<int32_t>();
  };
  data::Sample sample;
  sample.id = id;
  sample.encoder_input = optional_ids("encoder_input");
  sample.decoder_input = golden.ids(group + "/decoder_input");
  sample.decoder_target = golden.ids(group + "/decoder_target");
  for (const int32_t counts : golden.ids(group + "/loss_mask"))
    sample.loss_mask.push_back(static_cast<uint8_t>(counts != 0));
  sample.encoder_document = optional_ids("encoder_document");
  sample.decoder_document = optional_ids("decoder_document");
  const h5::Group opened(RED_HDF5(DataError, H5Gopen2(golden.file.get(), group.c_str(), H5P_DEFAULT),
                                  "{}: group '{}'", golden.path.string(), group));
  sample.prefix = static_cast<int32_t>(
      h5::read_int(opened.get(), "prefix", golden.path.string() + ": group '" + group + "'"));
  const std::size_t length = sample.decoder_target.size();
  if (sample.decoder_input.size() != length || sample.loss_mask.size() != length)
    throw DataError("{}: group '{}': decoder input, target and loss mask differ in length",
                    golden.path.string(), group);
  return sample;
}

/// Names that are numbers, in numerical order.
std::vector<std::string> numbered(const GoldenFile& golden, const std::string& group) {
  std::vector<std::string> names = golden.names(group);
  for (const std::string& name : names) {
    if (name.empty() || name.size() > 9 ||
        !std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }))
      throw DataError("{}: group '{}' holds '{}', which is no number", golden.path.string(), group, name);
  }
  std::sort(names.begin(), names.end(),
            [](const std::string& a, const std::string& b) { return std::stoi(a) < std::stoi(b); });
  return names;
}

GoldenExample read_example(const GoldenFile& golden, const std::string& group, uint64_t id) {
  GoldenExample example;
  example.sample = read_sample(golden, group, id);
  example.logits = golden.matrix(group + "/logits");
  example.log_probability = golden.doubles(group + "/log_probability");
  for (const std::string& block : golden.names(group + "/attention")) {
    const std::string dataset = group + "/attention/" + block;
    const std::vector<int64_t> shape = golden.shape(dataset, 3);
    example.attention[block] = {shape[0], shape[1], shape[2], golden.doubles(dataset)};
  }
  return example;
}

}  // namespace

std::filesystem::path golden_dir() {
  const char* dir = std::getenv("REDLLM_GOLDEN_DIR");
  return dir && *dir ? std::filesystem::path(dir) : std::filesystem::path(RED_SOURCE_DIR) / "tests/golden";
}

std::vector<std::filesystem::path> golden_files(const std::string& kind) {
  const std::filesystem::path dir = golden_dir();
  std::error_code error;
  const char* only = std::getenv("REDLLM_GOLDEN_FILE");
  std::vector<std::filesystem::path> found;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path().extension() != ".h5" || (only != nullptr && entry.path().stem() != only)) continue;
    const h5::File file = h5::open_file(entry.path());
    if (h5::read_text(file.get(), "golden", entry.path().string()) == kind) found.push_back(entry.path());
  }
  if (error) throw DataError("{}: {}", dir.string(), error.message());
  if (found.empty()) throw DataError("{}: no .h5 file whose attribute 'golden' is '{}'", dir.string(), kind);
  std::sort(found.begin(), found.end());
  return found;
}

GoldenStep read_golden_step(const std::filesystem::path& file) {
  const GoldenFile golden(file, "step");
  GoldenStep step;
  step.name = file.stem().string();
  step.model = read_model(golden, step.z_loss);
  step.parameters = golden.tensors("parameters");
  step.gradients = golden.tensors("gradients");
  for (const std::string& name : numbered(golden, "examples"))
    step.examples.push_back(read_example(golden, "examples/" + name, step.examples.size()));
  step.loss = h5::read_double(golden.file.get(), "loss", file.string());
  step.gradient_norm = h5::read_double(golden.file.get(), "gradient_norm", file.string());
  step.num_targets = h5::read_int(golden.file.get(), "targets", file.string());
  return step;
}

GoldenTrajectory read_golden_trajectory(const std::filesystem::path& file) {
  const GoldenFile golden(file, "trajectory");
  GoldenTrajectory run;
  run.name = file.stem().string();
  run.model = read_model(golden, run.z_loss);
  const nlohmann::json rule = golden.json("optimizer");
  const auto number = [&](const char* key) { return value_of<double>(golden, rule, "optimizer", key); };
  run.optimizer.factored = value_of<bool>(golden, rule, "optimizer", "factored");
  run.optimizer.min_dim_to_factor = value_of<int64_t>(golden, rule, "optimizer", "min_dim_to_factor");
  run.optimizer.decay = number("decay");
  run.optimizer.clip_threshold = number("update_clip");
  run.optimizer.epsilon1 = number("epsilon1");
  run.optimizer.epsilon2 = number("epsilon2");
  run.optimizer.gradient_clip = number("gradient_clip");
  const nlohmann::json rates = golden.json("schedule");
  run.schedule.kind = optim::ScheduleKind::cosine;
  run.schedule.peak = value_of<double>(golden, rates, "schedule", "peak");
  run.schedule.warmup_steps = value_of<int64_t>(golden, rates, "schedule", "warmup");
  run.schedule.total_steps = value_of<int64_t>(golden, rates, "schedule", "total");
  run.schedule.final_fraction = value_of<double>(golden, rates, "schedule", "final");
  run.parameters = golden.tensors("parameters");
  uint64_t id = 0;
  for (const std::string& step : numbered(golden, "steps")) {
    std::vector<data::Sample>& batch = run.steps.emplace_back();
    for (const std::string& example : numbered(golden, "steps/" + step))
      batch.push_back(read_sample(golden, "steps/" + step + "/" + example, id++));
  }
  run.loss = golden.doubles("loss");
  run.gradient_norm = golden.doubles("gradient_norm");
  run.learning_rate = golden.doubles("learning_rate");
  run.final_parameters = golden.tensors("final_parameters");
  if (run.loss.size() != run.steps.size() || run.gradient_norm.size() != run.steps.size() ||
      run.learning_rate.size() != run.steps.size())
    throw DataError("{}: loss, gradient_norm and learning_rate need one value for each of {} steps",
                    file.string(), run.steps.size());
  return run;
}

std::map<std::string, GoldenAdafactor> read_golden_adafactor(const std::filesystem::path& file) {
  const GoldenFile golden(file, "adafactor");
  std::map<std::string, GoldenAdafactor> modes;
  for (const std::string& name : golden.names("/")) {
    GoldenAdafactor& mode = modes[name];
    mode.initial = golden.tensors(name + "/initial");
    mode.rates = golden.doubles(name + "/rates");
    for (const std::string& step : numbered(golden, name + "/gradients"))
      mode.gradients.push_back(golden.tensors(name + "/gradients/" + step));
    for (const std::string& step : numbered(golden, name + "/parameters"))
      mode.parameters[std::stoi(step)] = golden.tensors(name + "/parameters/" + step);
    for (const std::string& parameter : golden.names(name + "/state"))
      mode.state[parameter] = golden.tensors(name + "/state/" + parameter);
    if (mode.gradients.size() != mode.rates.size())
      throw DataError("{}: '{}' has gradients of {} steps and {} rates", file.string(), name,
                      mode.gradients.size(), mode.rates.size());
  }
  return modes;
}

}  // namespace red::test

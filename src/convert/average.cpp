#include "convert/average.hpp"

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.hpp"
#include "config/option_table.hpp"
#include "convert/checkpoint_writer.hpp"
#include "convert/model_checkpoint.hpp"
#include "convert/progress.hpp"

namespace red::convert {
namespace {

using Models = std::vector<std::unique_ptr<ModelCheckpoint>>;

/// Of all checkpoints together; a process may usually have 1,024.
constexpr std::size_t kMostOpenFiles = 256;

/// Each has its index open too, and a shard file by two descriptors; where there are too many even for one of
/// them, files are opened for each read.
std::size_t most_open_shards(std::size_t num_checkpoints) {
  const std::size_t files_each = kMostOpenFiles / num_checkpoints;
  return files_each < 3 ? 0 : std::min((files_each - 1) / 2, checkpoint::Reader::kMostOpenShards);
}

/// What the parameters mean must be the same; names and seeds may differ.
void check_same_model(const ModelCheckpoint& first, const ModelCheckpoint& other) {
  std::string wrong;
  for (const config::RunOption& option : config::run_options()) {
    if (option.section != "model" || option.key == "name" || option.key == "init_seed") continue;
    const std::string a = option.get(first.config()), b = option.get(other.config());
    if (a != b) wrong += fmt::format("\n  {} = {} and {}", option.name(), a, b);
  }
  if (!wrong.empty())
    throw ConfigError("{} and {} are not of one model:{}", first.folder().string(), other.folder().string(),
                      wrong);
  const std::string &a = first.reader().metadata().tokenizer_digest,
                    &b = other.reader().metadata().tokenizer_digest;
  if (a != b)
    throw ConfigError("{} and {} are of different tokenizers: SHA-256 {} and {}", first.folder().string(),
                      other.folder().string(), a, b);
}

void write_mean(const Models& models, const model::ParameterSpec& spec, std::size_t index,
                CheckpointWriter& out, Progress& progress) {
  std::vector<float> values;
  std::vector<double> sums;
  for_each_row_block(spec.rows, spec.cols, [&](int64_t first, int64_t count) {
    const model::ParameterRegion region{first, count, 0, spec.cols};
    values.resize(static_cast<std::size_t>(region.size()));
    sums.assign(values.size(), 0.0);
    for (const auto& model : models) {
      model->read(spec, region, values);
      for (std::size_t i = 0; i < values.size(); ++i) sums[i] += static_cast<double>(values[i]);
      progress.add(values.size() * sizeof(float));
    }
    const auto n = static_cast<double>(models.size());
    std::transform(sums.begin(), sums.end(), values.begin(),
                   [n](double sum) { return static_cast<float>(sum / n); });
    out.write(index, region, values);
  });
}

}  // namespace

void average(const std::vector<std::filesystem::path>& checkpoints, const std::filesystem::path& run_dir) {
  if (checkpoints.size() < 2) throw ConfigError("an average needs at least two checkpoints");
  Models models;
  for (const std::filesystem::path& folder : checkpoints) {
    models.push_back(std::make_unique<ModelCheckpoint>(folder, most_open_shards(checkpoints.size())));
    check_same_model(*models.front(), *models.back());
  }
  const std::vector<model::ParameterSpec>& parameters = models.front()->parameters();
  std::vector<checkpoint::LogicalTensor> tensors;
  tensors.reserve(parameters.size());
  for (const model::ParameterSpec& spec : parameters) tensors.push_back(logical_tensor(spec));
  CheckpointWriter out(run_dir, tensors);
  Progress progress(fmt::format("averaging {} checkpoints", models.size()),
                    models.front()->num_bytes() * models.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) write_mean(models, parameters[i], i, out, progress);
  const auto newest = std::max_element(models.begin(), models.end(), [](const auto& a, const auto& b) {
    return a->reader().metadata().step < b->reader().metadata().step;
  });
  const checkpoint::Metadata& from = (*newest)->reader().metadata();
  checkpoint::Metadata metadata;
  metadata.step = from.step;
  metadata.sample_cursor = from.sample_cursor;
  metadata.configuration = from.configuration;
  metadata.tokenizer_digest = from.tokenizer_digest;
  metadata.layout = fmt::format("average of {} checkpoints", models.size());
  for (std::size_t i = 0; i < checkpoints.size(); ++i)
    metadata.extra[fmt::format("averaged {}", i)] = (checkpoints[i] / "").parent_path().filename().string();
  out.save(metadata);
  progress.finish();
}

}  // namespace red::convert

#include "launch/inspect_samples.hpp"

#include <fmt/format.h>

#include <map>

#include "config/command_line.hpp"
#include "data/source_provider.hpp"
#include "launch/commands.hpp"
#include "launch/inspect_print.hpp"
#include "launch/trained_model.hpp"
#include "train/sample_list.hpp"
#include "train/step_samples.hpp"

namespace red::launch {
namespace {

using nlohmann::ordered_json;

config::CommandSpec spec() {
  return {
      .name = "inspect samples",
      .usage = "RUN_DIR [--step N] [--json]",
      .summary =
          "Shows which samples a step of a run has, without training and without reading them: global "
          "index,\n"
          "source, window or pair of it (as `redllm data show --at` counts them) and its documents; and the\n"
          "option that leaves them out. Start it where the run was started: its configuration names files.",
      .options =
          {{"step", "N",
            "counted from 1 (default: the step that the run was in when it ended, else the first behind "
            "its newest checkpoint)",
            false},
           {"json", "", "one JSON object instead of a table", false}},
      .min_positional = 1,
      .max_positional = 1,
      .example = "redllm inspect samples runs/mine --step 1201"};
}

struct Row {
  uint64_t sample = 0;
  std::string source;
  int64_t item = 0;
  std::pair<int64_t, int64_t> documents;
};

std::vector<Row> rows_of(const train::StepSamples& samples, const data::MixtureProvider& provider) {
  std::vector<Row> rows;
  for (int64_t i = 0; i < samples.count; ++i) {
    const uint64_t index = samples.left_out.at(samples.first, static_cast<uint64_t>(i));
    const data::MixtureProvider::Place place = provider.place(index);
    const data::ItemSource& source = *provider.sources()[static_cast<std::size_t>(place.source)];
    rows.push_back({index, source.name(), place.item, source.documents(place.item)});
  }
  return rows;
}

/// What data.skip_samples has to be, so that the step's samples are left out as well.
std::string to_leave_out(const train::StepSamples& samples, const config::RunConfig& config) {
  data::SampleRanges all = config.data.skip_samples;
  all.add(samples.ranges());
  return all.to_string();
}

void print_samples(const std::string& run_dir, const train::StepSamples& samples,
                   const std::vector<Row>& rows, const config::RunConfig& config) {
  train::SampleList list;
  for (const Row& row : rows) list[row.source].push_back(static_cast<uint64_t>(row.item));
  print_line("run", run_dir);
  print_line("step", fmt::format("{}, counted from {}", samples.step, samples.counted_from));
  print_line("samples", fmt::format("{}: {}", samples.ranges().to_string(), train::to_text(list)));
  print_line("to leave out", fmt::format("--data.skip_samples={}", to_leave_out(samples, config)));
  const bool pairs = config.data.samples == data::SampleKind::pairs;
  fmt::print("{:>12}  {:<20} {:>10}  documents\n", "sample", "source", pairs ? "pair" : "window");
  for (const Row& row : rows) {
    const auto [first, last] = row.documents;
    fmt::print("{:>12}  {:<20} {:>10}  {}\n", row.sample, row.source, row.item,
               first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
  }
}

void print_samples_json(const std::string& run_dir, const train::StepSamples& samples,
                        const std::vector<Row>& rows, const config::RunConfig& config) {
  ordered_json json = {{"run", run_dir},
                       {"step", samples.step},
                       {"counted_from", samples.counted_from},
                       {"ranges", samples.ranges().to_string()},
                       {"skip_samples", to_leave_out(samples, config)}};
  json["samples"] = ordered_json::array();
  for (const Row& row : rows)
    json["samples"].push_back({{"sample", row.sample},
                               {"source", row.source},
                               {"item", row.item},
                               {"documents", {row.documents.first, row.documents.second}}});
  print_object(json);
}

}  // namespace

int inspect_samples(std::span<const std::string> args) {
  const config::CommandLine line(spec(), args);
  if (line.help()) return print_help(spec());
  const std::string& run_dir = line.positional().front();
  const config::RunConfig config = train::configuration_of_run(run_dir);
  const int64_t step = line.get_integer("step", 0, 1, int64_t{1} << 40);
  const train::StepSamples samples =
      train::samples_of_step(run_dir, config, step != 0 ? step : train::step_to_look_at(run_dir));
  const data::Tokenizer tokenizer = load_tokenizer(config);
  const auto provider =
      data::make_training_provider(config.data, tokenizer.ids(), config.model.has_encoder());
  const std::vector<Row> rows = rows_of(samples, *provider);
  (line.has("json") ? print_samples_json : print_samples)(run_dir, samples, rows, config);
  return 0;
}

}  // namespace red::launch

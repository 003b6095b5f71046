#include "launch/inspect_print.hpp"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <vector>

#include "checkpoint/tensor_statistics.hpp"
#include "config/ini_file.hpp"

namespace red::launch {
namespace {

using checkpoint::LogicalTensor;
using checkpoint::Reader;
using checkpoint::TensorStatistics;
using nlohmann::ordered_json;

int64_t num_elements(const LogicalTensor& tensor) {
  return tensor.rows * (tensor.cols == 0 ? 1 : tensor.cols);
}

/// The [model] section of the configuration that the checkpoint carries.
std::map<std::string, std::string> model_of(const Reader& reader) {
  constexpr std::string_view section = "model.";
  std::map<std::string, std::string> values;
  const config::IniFile file =
      config::scan_ini(reader.metadata().configuration, "configuration of the checkpoint");
  for (const config::IniEntry& entry : file.entries) {
    if (entry.name.starts_with(section)) values[entry.name.substr(section.size())] = entry.value;
  }
  return values;
}

/// Tensors and elements of each kind: "parameters", "optimizer/v", ...
struct Group {
  int64_t num_tensors = 0;
  int64_t num_elements = 0;
};

std::map<std::string, Group> groups_of(const Reader& reader) {
  std::map<std::string, Group> groups;
  for (const LogicalTensor& tensor : reader.tensors()) {
    Group& group = groups[tensor.path.substr(0, tensor.path.rfind('/'))];
    ++group.num_tensors;
    group.num_elements += num_elements(tensor);
  }
  return groups;
}

uint64_t num_bytes_of(const Reader& reader) {
  uint64_t total = 0;
  for (const checkpoint::ShardFile& file : reader.shard_files()) total += file.num_bytes;
  return total;
}

ordered_json tensor_json(const Reader& reader, const LogicalTensor& tensor, bool with_figures) {
  ordered_json json;
  json["name"] = tensor.path;
  json["shape"] = tensor.cols == 0 ? ordered_json{tensor.rows} : ordered_json{tensor.rows, tensor.cols};
  json["dtype"] = name_of(tensor.dtype);
  if (!with_figures) return json;
  const TensorStatistics s = checkpoint::statistics_of(reader, tensor);
  json["rms"] = json_number(s.rms);
  json["min"] = json_number(s.min);
  json["max"] = json_number(s.max);
  json["num_nan"] = s.num_nan;
  json["num_infinite"] = s.num_infinite;
  return json;
}

}  // namespace

std::string shape_of(const LogicalTensor& tensor) {
  return tensor.cols == 0 ? fmt::format("({})", tensor.rows)
                          : fmt::format("({}, {})", tensor.rows, tensor.cols);
}

void print_line(std::string_view name, std::string_view value) {
  fmt::print("{:<12} {}\n", name, value);
}

ordered_json json_number(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json(nullptr);
}

void print_object(const ordered_json& json) {
  fmt::print("{}\n", json.dump(2, ' ', false, ordered_json::error_handler_t::replace));
}

void print_table(const std::filesystem::path& folder, const Reader& reader, bool with_tensors) {
  const checkpoint::Metadata& metadata = reader.metadata();
  print_line("checkpoint", folder.string());
  print_line("step", std::to_string(metadata.step));
  print_line("samples", fmt::format("{} consumed", metadata.sample_cursor));
  print_line("written by", metadata.layout);
  if (metadata.validation_loss)
    print_line("validation", fmt::format("loss {:.4f}", *metadata.validation_loss));
  print_line("tokenizer", metadata.tokenizer_digest.empty() ? "none" : metadata.tokenizer_digest);
  print_line("files", fmt::format("{} shards, {:.2f} MiB", reader.shard_files().size(),
                                  static_cast<double>(num_bytes_of(reader)) / (1 << 20)));
  for (const auto& [name, group] : groups_of(reader))
    print_line(name, fmt::format("{} tensors, {} elements", group.num_tensors, group.num_elements));
  for (const auto& [name, value] : metadata.extra) print_line(name, value);
  fmt::print("\nmodel\n");
  for (const auto& [name, value] : model_of(reader)) fmt::print("  {} = {}\n", name, value);
  if (!with_tensors) return;
  std::size_t width = 6;
  for (const LogicalTensor& tensor : reader.tensors()) width = std::max(width, tensor.path.size());
  fmt::print("\n{:<{}}  {:>16} {:<5} {:>12} {:>12} {:>12} {:>6} {:>6}\n", "tensor", width, "shape", "dtype",
             "rms", "min", "max", "nan", "inf");
  for (const LogicalTensor& tensor : reader.tensors()) {
    const TensorStatistics s = checkpoint::statistics_of(reader, tensor);
    fmt::print("{:<{}}  {:>16} {:<5} {:>12.5g} {:>12.5g} {:>12.5g} {:>6} {:>6}\n", tensor.path, width,
               shape_of(tensor), name_of(tensor.dtype), s.rms, s.min, s.max, s.num_nan, s.num_infinite);
  }
}

void print_json(const std::filesystem::path& folder, const Reader& reader, bool with_figures) {
  const checkpoint::Metadata& metadata = reader.metadata();
  ordered_json json;
  json["checkpoint"] = folder.string();
  json["step"] = metadata.step;
  json["sample_cursor"] = metadata.sample_cursor;
  json["layout"] = metadata.layout;
  json["tokenizer_digest"] = metadata.tokenizer_digest;
  json["num_bytes"] = num_bytes_of(reader);
  json["shard_files"] = ordered_json::array();
  for (const checkpoint::ShardFile& file : reader.shard_files())
    json["shard_files"].push_back({{"name", file.name}, {"num_bytes", file.num_bytes}});
  json["extra"] = metadata.extra;
  json["model"] = model_of(reader);
  json["tensors"] = ordered_json::array();
  for (const LogicalTensor& tensor : reader.tensors())
    json["tensors"].push_back(tensor_json(reader, tensor, with_figures));
  if (metadata.validation_loss) json["validation_loss"] = json_number(*metadata.validation_loss);
  print_object(json);
}

}  // namespace red::launch

#include "launch/inspect_checks.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "checkpoint/content_digest.hpp"
#include "checkpoint/tensor_difference.hpp"
#include "checkpoint/verify.hpp"
#include "launch/inspect_print.hpp"
#include "launch/trained_model.hpp"

namespace red::launch {
namespace {

namespace fs = std::filesystem;
using checkpoint::LogicalTensor;
using checkpoint::Reader;
using checkpoint::TensorDifference;
using nlohmann::ordered_json;

std::map<std::string, LogicalTensor> by_path(const Reader& reader) {
  std::map<std::string, LogicalTensor> tensors;
  for (const LogicalTensor& tensor : reader.tensors()) tensors[tensor.path] = tensor;
  return tensors;
}

/// What tells two checkpoints apart, of all that the digest is of.
struct Comparison {
  std::vector<std::string> only_first, only_second;
  std::vector<std::string> other_shapes;  ///< "NAME (3, 4) fp32 and (3, 5) fp32"
  std::vector<std::pair<std::string, TensorDifference>> different;
  std::size_t num_equal = 0;
  bool same_place = true;                   ///< step and samples
  std::vector<std::string> other_metadata;  ///< names: "tokenizer_digest", "extra: updates"

  bool tensors_equal() const {
    return only_first.empty() && only_second.empty() && other_shapes.empty() && different.empty();
  }
  bool equal() const { return same_place && other_metadata.empty() && tensors_equal(); }
};

std::vector<std::string> other_metadata(const checkpoint::Metadata& first,
                                        const checkpoint::Metadata& second) {
  std::vector<std::string> names;
  if (first.tokenizer_digest != second.tokenizer_digest) names.emplace_back("tokenizer_digest");
  std::map<std::string, int> num_having;
  for (const checkpoint::Metadata* metadata : {&first, &second}) {
    for (const auto& [name, value] : metadata->extra) ++num_having[name];
  }
  for (const auto& [name, count] : num_having) {
    if (count < 2 || first.extra.at(name) != second.extra.at(name)) names.push_back("extra: " + name);
  }
  return names;
}

Comparison compare(const Reader& first, const Reader& second) {
  Comparison result;
  result.same_place = first.metadata().step == second.metadata().step &&
                      first.metadata().sample_cursor == second.metadata().sample_cursor;
  result.other_metadata = other_metadata(first.metadata(), second.metadata());
  const std::map<std::string, LogicalTensor> others = by_path(second);
  for (const auto& [path, tensor] : by_path(first)) {
    const auto other = others.find(path);
    if (other == others.end()) {
      result.only_first.push_back(path);
      continue;
    }
    const LogicalTensor& b = other->second;
    if (tensor.rows != b.rows || tensor.cols != b.cols || tensor.dtype != b.dtype) {
      result.other_shapes.push_back(fmt::format("{} {} {} and {} {}", path, shape_of(tensor),
                                                name_of(tensor.dtype), shape_of(b), name_of(b.dtype)));
      continue;
    }
    const TensorDifference difference = checkpoint::difference_of(first, second, tensor);
    if (difference.num_different == 0) {
      ++result.num_equal;
    } else {
      result.different.emplace_back(path, difference);
    }
  }
  for (const auto& [path, tensor] : others) {
    if (!first.contains(path)) result.only_second.push_back(path);
  }
  return result;
}

void print_comparison(const Comparison& c, const Reader& first, const Reader& second) {
  if (!c.same_place)
    fmt::print("step {}, {} samples, and step {}, {} samples\n", first.metadata().step,
               first.metadata().sample_cursor, second.metadata().step, second.metadata().sample_cursor);
  for (const std::string& name : c.other_metadata) fmt::print("other metadata: {}\n", name);
  for (const std::string& path : c.only_first) fmt::print("only in the first: {}\n", path);
  for (const std::string& path : c.only_second) fmt::print("only in the second: {}\n", path);
  for (const std::string& text : c.other_shapes) fmt::print("of other shapes: {}\n", text);
  if (!c.different.empty()) {
    std::size_t width = 6;
    for (const auto& [path, difference] : c.different) width = std::max(width, path.size());
    fmt::print("{:<{}}  {:>12} {:>12} {:>12} {:>12} {:>6}\n", "tensor", width, "elements", "different",
               "largest", "relative", "nan");
    for (const auto& [path, d] : c.different)
      fmt::print("{:<{}}  {:>12} {:>12} {:>12.5g} {:>12.5g} {:>6}\n", path, width, d.num_elements,
                 d.num_different, d.largest, d.relative, d.num_nan);
  }
  fmt::print("{} tensors are equal, {} differ\n", c.num_equal,
             c.different.size() + c.other_shapes.size() + c.only_first.size() + c.only_second.size());
}

void print_comparison_json(const Comparison& c, const fs::path& folder, const fs::path& other,
                           const Reader& first, const Reader& second) {
  ordered_json json;
  json["checkpoint"] = folder.string();
  json["other"] = other.string();
  json["equal"] = c.equal();
  json["tensors_equal"] = c.tensors_equal();
  json["step"] = {first.metadata().step, second.metadata().step};
  json["sample_cursor"] = {first.metadata().sample_cursor, second.metadata().sample_cursor};
  json["other_metadata"] = c.other_metadata;
  json["num_equal"] = c.num_equal;
  json["different"] = ordered_json::array();
  for (const auto& [path, d] : c.different)
    json["different"].push_back({{"name", path},
                                 {"num_elements", d.num_elements},
                                 {"num_different", d.num_different},
                                 {"largest", json_number(d.largest)},
                                 {"relative", json_number(d.relative)},
                                 {"num_nan", d.num_nan}});
  json["only_in_first"] = c.only_first;
  json["only_in_second"] = c.only_second;
  json["other_shapes"] = c.other_shapes;
  print_object(json);
}

bool holds_a_shard(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().filename().string().starts_with("shard-")) return true;
  }
  return false;
}

}  // namespace

fs::path folder_to_verify(const std::string& given) {
  return holds_a_shard(given) ? fs::path(given) : find_checkpoint(given);
}

int verify_checkpoint(const fs::path& folder, bool json) {
  const std::vector<std::string> damage = checkpoint::find_damage(folder);
  if (json) {
    print_object({{"checkpoint", folder.string()}, {"whole", damage.empty()}, {"damage", damage}});
    return static_cast<int>(damage.empty() ? ExitCode::ok : ExitCode::data);
  }
  if (!damage.empty()) {
    std::string text;
    for (const std::string& line : damage) text += "\n  " + line;
    throw DataError("checkpoint '{}' is not whole:{}", folder.string(), text);
  }
  const Reader reader(folder);
  uint64_t num_bytes = 0;
  for (const checkpoint::ShardFile& file : reader.shard_files()) num_bytes += file.num_bytes;
  fmt::print("'{}' is whole: {} tensors in {} shard files, {:.2f} MiB{}\n", folder.string(),
             reader.tensors().size(), reader.shard_files().size(), static_cast<double>(num_bytes) / (1 << 20),
             reader.has_checksums() ? "; every byte agrees with its checksum"
                                    : "; its format 1.0 has no checksums to compare with");
  return 0;
}

int print_digest(const fs::path& folder, bool json) {
  const std::string digest = checkpoint::content_digest(Reader(folder));
  if (json) {
    print_object({{"checkpoint", folder.string()}, {"digest", digest}});
  } else {
    fmt::print("{}\n", digest);
  }
  return 0;
}

int print_difference(const fs::path& folder, const fs::path& other, bool json) {
  const Reader first(folder), second(other);
  const Comparison comparison = compare(first, second);
  if (json) {
    print_comparison_json(comparison, folder, other, first, second);
  } else {
    print_comparison(comparison, first, second);
  }
  return 0;
}

}  // namespace red::launch

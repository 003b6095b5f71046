#include "convert/safetensors_folder.hpp"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/check.hpp"
#include "base/error.hpp"

namespace red::convert {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

bool is_plain_name(const std::string& name) {
  return !name.empty() && name.find('/') == std::string::npos && name.find("..") == std::string::npos &&
         name.find('\0') == std::string::npos && name.ends_with(".safetensors");
}

}  // namespace

SafetensorsFolder::SafetensorsFolder(const fs::path& folder) {
  const bool single = fs::exists(folder / kSingle), index = fs::exists(folder / kIndex);
  if (single && index)
    throw DataError("{}: has both {} and {}: take away the one that is not the model's", folder.string(),
                    kSingle, kIndex);
  if (!single && !index)
    throw DataError("{}: has neither {} nor {}; weights in other formats (pickle) are not read",
                    folder.string(), kSingle, kIndex);
  if (single) {
    add_file(folder / kSingle);
  } else {
    read_index(folder, folder / kIndex);
  }
}

void SafetensorsFolder::add_file(const fs::path& path) {
  files_.push_back(std::make_unique<SafetensorsFile>(path));
  for (const SafeTensor& tensor : files_.back()->tensors()) {
    const auto [at, is_new] = places_.emplace(tensor.name, Place{files_.back().get(), &tensor});
    if (!is_new)
      throw DataError("{}: tensor {} is also in {}", path.string(), tensor.name,
                      at->second.file->path().filename().string());
  }
}

void SafetensorsFolder::read_index(const fs::path& folder, const fs::path& index) {
  const json content = json::parse(data::read_whole(index), nullptr, false);
  if (!content.is_object() || !content.contains("weight_map") || !content["weight_map"].is_object() ||
      content["weight_map"].empty())
    throw DataError("{}: is no JSON object with a weight_map that names tensors", index.string());
  const json& map = content["weight_map"];
  std::set<std::string> names;
  for (const auto& [tensor, file] : map.items()) {
    if (!file.is_string() || !is_plain_name(file))
      throw DataError("{}: tensor {} is said to be in {}, which is no plain name of a safetensors file",
                      index.string(), tensor, file.dump());
    names.insert(file.get<std::string>());
  }
  for (const std::string& name : names) add_file(folder / name);
  for (const auto& [tensor, file] : map.items()) {
    const auto found = places_.find(tensor);
    if (found == places_.end() || found->second.file->path().filename() != file.get<std::string>())
      throw DataError("{}: tensor {} is not in {}", index.string(), tensor, file.get<std::string>());
  }
  if (map.size() != places_.size())
    throw DataError("{}: the files hold {} tensors, the index names {}", index.string(), places_.size(),
                    map.size());
}

std::vector<SafeTensor> SafetensorsFolder::tensors() const {
  std::vector<SafeTensor> all;
  for (const auto& [name, place] : places_) all.push_back(*place.tensor);
  return all;
}

void SafetensorsFolder::read(const std::string& name, int64_t first, std::span<float> values) const {
  const Place& place = places_.at(name);
  place.file->read(*place.tensor, first, values);
}

SafetensorsFolderWriter::SafetensorsFolderWriter(fs::path folder, std::vector<SafeTensor> tensors,
                                                 uint64_t max_file_bytes)
    : folder_(std::move(folder)), tensors_(std::move(tensors)) {
  RED_CHECK(!tensors_.empty(), "no tensors");
  uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    SafeTensor& tensor = tensors_[i];
    tensor.num_bytes = static_cast<uint64_t>(tensor.size()) * size_of(tensor.dtype);
    if (i == 0 || bytes + tensor.num_bytes > max_file_bytes) {
      first_.push_back(i);
      bytes = 0;
    }
    bytes += tensor.num_bytes;
  }
  first_.push_back(tensors_.size());
  open(0);
}

std::string SafetensorsFolderWriter::file_name(std::size_t file) const {
  if (num_files() == 1) return kSingle;
  return fmt::format("model-{:05}-of-{:05}.safetensors", file + 1, num_files());
}

void SafetensorsFolderWriter::open(std::size_t file) {
  file_ = file;
  const std::span<const SafeTensor> all(tensors_);
  writer_ = std::make_unique<SafetensorsWriter>(folder_ / file_name(file),
                                                all.subspan(first_[file], first_[file + 1] - first_[file]),
                                                std::map<std::string, std::string>{{"format", "pt"}});
}

void SafetensorsFolderWriter::append(std::span<const float> values) {
  RED_CHECK(tensor_ < tensors_.size(), "{} values behind the last tensor", values.size());
  writer_->append(values);
  done_ += static_cast<int64_t>(values.size());
  if (done_ < tensors_[tensor_].size()) return;
  done_ = 0;
  ++tensor_;
  if (tensor_ < first_[file_ + 1]) return;
  writer_->publish();
  if (tensor_ < tensors_.size()) open(file_ + 1);
}

void SafetensorsFolderWriter::finish() {
  RED_CHECK(tensor_ == tensors_.size(), "{} of {} tensors are written", tensor_, tensors_.size());
  if (num_files() == 1) return;
  uint64_t bytes = 0;
  nlohmann::ordered_json map;
  for (std::size_t file = 0; file < num_files(); ++file) {
    for (std::size_t i = first_[file]; i < first_[file + 1]; ++i) {
      map[tensors_[i].name] = file_name(file);
      bytes += tensors_[i].num_bytes;
    }
  }
  data::OutputFile out(folder_ / kIndex);
  out.append(nlohmann::ordered_json{{"metadata", {{"total_size", bytes}}}, {"weight_map", map}}.dump(2) +
             "\n");
  out.publish();
}

}  // namespace red::convert

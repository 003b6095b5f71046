#include "convert/safetensors.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/check.hpp"
#include "base/error.hpp"

namespace red::convert {
namespace {

using nlohmann::json;
constexpr int64_t kMaxExtent = int64_t{1} << 40;  ///< of a dim; two of them and an element size fit 128 bits

std::string_view safetensors_name(DType dtype) {
  return dtype == DType::bf16 ? "BF16" : "F32";
}

/// A header in which a name stands twice would be read differently by different libraries.
json parse_header(const std::string& text, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  std::string repeated;
  const auto watch = [&](int, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      repeated = value.get<std::string>();
    return true;
  };
  json header;
  try {
    header = json::parse(text, watch);
  } catch (const json::exception&) {
    throw DataError("{}: its header is no JSON", path);
  }
  if (!header.is_object()) throw DataError("{}: its header is no JSON object", path);
  if (!repeated.empty()) throw DataError("{}: its header has '{}' twice", path, repeated);
  return header;
}

void check_name(const std::string& name, const std::string& path) {
  const bool plain =
      !name.empty() && name.size() <= 256 && name.find('/') == std::string::npos &&
      name.find("..") == std::string::npos &&
      std::all_of(name.begin(), name.end(), [](unsigned char c) { return c > 0x20 && c < 0x7F; });
  if (!plain) throw DataError("{}: a tensor has an impossible name ({} bytes)", path, name.size());
}

int64_t extent(const json& value, const std::string& what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMaxExtent))
    throw DataError("{}: a dim of its shape is no whole number below 2^40", what);
  return value.get<int64_t>();
}

/// Dtype and shape of an entry.
SafeTensor shape_of(const std::string& name, const json& entry, const std::string& what) {
  SafeTensor tensor{.name = name};
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets"))
    throw DataError("{}: needs dtype, shape and data_offsets", what);
  const json& dtype = entry["dtype"];
  const json& shape = entry["shape"];
  if (dtype != "F32" && dtype != "BF16")
    throw DataError("{}: is of dtype {}; save it as float32 or bfloat16", what, dtype.dump());
  if (dtype == "BF16") tensor.dtype = DType::bf16;
  if (!shape.is_array() || shape.empty() || shape.size() > 2)
    throw DataError("{}: has shape {}; one or two dims are possible", what, shape.dump());
  tensor.rows = extent(shape[0], what);
  if (shape.size() == 2) tensor.cols = extent(shape[1], what);
  if (tensor.rows == 0 || (shape.size() == 2 && tensor.cols == 0))
    throw DataError("{}: has no elements", what);
  return tensor;
}

/// An entry of the header, held against the `available` bytes of data.
SafeTensor read_entry(const std::string& name, const json& entry, uint64_t available,
                      const std::string& path) {
  check_name(name, path);
  const std::string what = fmt::format("{}: tensor {}", path, name);
  SafeTensor tensor = shape_of(name, entry, what);
  const json& offsets = entry["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned())
    throw DataError("{}: data_offsets are not two whole numbers", what);
  const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (begin > end || end > available)
    throw DataError("{}: lies at {} ... {} of {} bytes of data", what, begin, end, available);
  __extension__ using Wide = unsigned __int128;
  const Wide wanted = static_cast<Wide>(tensor.rows) * static_cast<Wide>(std::max<int64_t>(tensor.cols, 1)) *
                      size_of(tensor.dtype);
  if (wanted != end - begin)
    throw DataError("{}: has {} bytes, which its shape and dtype do not make", what, end - begin);
  tensor.offset = begin;
  tensor.num_bytes = end - begin;
  return tensor;
}

void check_places(const std::vector<SafeTensor>& tensors, uint64_t available, const std::string& path) {
  uint64_t end = 0;
  for (const SafeTensor& tensor : tensors) {
    if (tensor.offset != end)
      throw DataError("{}: tensor {} begins at byte {} of the data, where {} is the next one", path,
                      tensor.name, tensor.offset, end);
    end += tensor.num_bytes;
  }
  if (end != available)
    throw DataError("{}: has {} bytes of data, of which tensors take {}: is it cut off?", path, available,
                    end);
}

std::string header_text(std::vector<SafeTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header;
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t offset = 0;
  for (SafeTensor& tensor : tensors) {
    tensor.num_bytes = static_cast<uint64_t>(tensor.size()) * size_of(tensor.dtype);
    nlohmann::ordered_json shape = {tensor.rows};
    if (tensor.cols > 0) shape.push_back(tensor.cols);
    header[tensor.name] = {{"dtype", safetensors_name(tensor.dtype)},
                           {"shape", shape},
                           {"data_offsets", {offset, offset + tensor.num_bytes}}};
    offset += tensor.num_bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that data are aligned
  return text;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::string name = path.string();
  if (file_.num_bytes() < 8) throw DataError("{}: is no safetensors file: {} bytes", name, file_.num_bytes());
  uint64_t header_bytes = 0;
  file_.read_at(0, std::as_writable_bytes(std::span(&header_bytes, 1)));
  if (header_bytes > kMaxHeaderBytes || header_bytes > file_.num_bytes() - 8)
    throw DataError("{}: is no safetensors file: its header would have {} bytes", name, header_bytes);
  std::string text(header_bytes, '\0');
  file_.read_at(8, std::as_writable_bytes(std::span(text)));
  const json header = parse_header(text, name);
  const uint64_t begin = 8 + header_bytes, available = file_.num_bytes() - begin;
  for (const auto& [key, entry] : header.items()) {
    if (key != "__metadata__") tensors_.push_back(read_entry(key, entry, available, name));
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const SafeTensor& a, const SafeTensor& b) { return a.offset < b.offset; });
  check_places(tensors_, available, name);
  for (SafeTensor& tensor : tensors_) tensor.offset += begin;
}

void SafetensorsFile::read(const SafeTensor& tensor, int64_t first, std::span<float> values) const {
  const auto count = static_cast<int64_t>(values.size());
  RED_CHECK(first >= 0 && first + count <= tensor.size(), "elements {} + {} of {}", first, count,
            tensor.name);
  const uint64_t offset = tensor.offset + static_cast<uint64_t>(first) * size_of(tensor.dtype);
  if (tensor.dtype == DType::fp32) return file_.read_at(offset, std::as_writable_bytes(values));
  // Into the upper half of the result's own memory, and widened from the front.
  auto* narrow = reinterpret_cast<std::byte*>(values.data()) + values.size() * sizeof(bf16);
  file_.read_at(offset, {narrow, values.size() * sizeof(bf16)});
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = static_cast<float>(data::load<bf16>(narrow + i * sizeof(bf16)));
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::span<const SafeTensor> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : tensors_(tensors.begin(), tensors.end()), file_(path) {
  const std::string header = header_text(tensors_, metadata);
  const uint64_t header_bytes = header.size();
  file_.append(std::as_bytes(std::span(&header_bytes, 1)));
  file_.append(header);
}

void SafetensorsWriter::append(std::span<const float> values) {
  RED_CHECK(current_ < tensors_.size(), "{} values behind the last tensor", values.size());
  const SafeTensor& tensor = tensors_[current_];
  done_ += static_cast<int64_t>(values.size());
  RED_CHECK(done_ <= tensor.size(), "{} of {} elements of {}", done_, tensor.size(), tensor.name);
  if (tensor.dtype == DType::fp32) {
    file_.append(std::as_bytes(values));
  } else {
    constexpr std::size_t piece = 1 << 16;
    for (std::size_t begin = 0; begin < values.size(); begin += piece) {
      const auto part = values.subspan(begin, std::min(piece, values.size() - begin));
      narrow_.resize(part.size());
      std::transform(part.begin(), part.end(), narrow_.begin(), [](float value) { return bf16(value); });
      file_.append(std::as_bytes(std::span(narrow_)));
    }
  }
  if (done_ < tensor.size()) return;
  ++current_;
  done_ = 0;
}

void SafetensorsWriter::publish() {
  RED_CHECK(current_ == tensors_.size(), "{} of {} tensors are written", current_, tensors_.size());
  file_.publish();
}

}  // namespace red::convert

// What `redllm inspect checkpoint` shows of a checkpoint, as a table or as JSON.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "checkpoint/checkpoint.hpp"

namespace red::launch {

/// Step, samples, layout, model, tensors by kind; with_tensors: shape, dtype and figures of each, which reads
/// every byte.
void print_table(const std::filesystem::path& folder, const checkpoint::Reader& reader, bool with_tensors);
/// The same as one object, tensors always among it.
void print_json(const std::filesystem::path& folder, const checkpoint::Reader& reader, bool with_figures);

/// Null where JSON has no number for it.
nlohmann::ordered_json json_number(double value);
void print_object(const nlohmann::ordered_json& json);
void print_line(std::string_view name, std::string_view value);
std::string shape_of(const checkpoint::LogicalTensor& tensor);

}  // namespace red::launch

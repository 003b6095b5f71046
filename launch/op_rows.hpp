// What `redllm bench ops` knows of one op, as JSON and as a line of its table.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace red::launch {

/// Of an op that another implementation would not do: {"op", "shape", "refused": why}.
nlohmann::ordered_json refused_row(const std::string& op, const std::string& shape, const std::string& why);

/// Names of the columns; with_search: a product's fastest algorithm is one of them.
std::string op_table_head(bool with_search);
/// A line without its end: figures, or why there are none.
std::string op_table_line(const nlohmann::ordered_json& row);

}  // namespace red::launch

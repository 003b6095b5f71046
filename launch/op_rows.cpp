#include "launch/op_rows.hpp"

#include <fmt/format.h>

namespace red::launch {

nlohmann::ordered_json refused_row(const std::string& op, const std::string& shape, const std::string& why) {
  return {{"op", op}, {"shape", shape}, {"refused", why.empty() ? "no reason is known" : why}};
}

std::string op_table_head(bool with_search) {
  return fmt::format("{:<50} {:<39} {:>6} {:>10} {:>10} {:>8} {:>9}{}", "op", "shape", "runs", "us",
                     "GFLOP/s", "GB/s", "of bound", with_search ? " us, search" : "");
}

std::string op_table_line(const nlohmann::ordered_json& row) {
  const std::string names =
      fmt::format("{:<50} {:<39} ", row["op"].get<std::string>(), row["shape"].get<std::string>());
  if (row.contains("refused")) return names + "refused: " + row["refused"].get<std::string>();
  const double gflops = row["gflops_per_s"].get<double>();
  const auto best = row.find("searched_us");
  return names + fmt::format("{:>6.0f} {:>10.1f} {:>10} {:>8.1f} {:>7.1f} %{}", row["runs"].get<double>(),
                             row["us"].get<double>(), gflops > 0.0 ? fmt::format("{:.1f}", gflops) : "-",
                             row["gb_per_s"].get<double>(), 100.0 * row["share"].get<double>(),
                             best == row.end() ? "" : fmt::format(" {:>10.1f}", best->get<double>()));
}

}  // namespace red::launch

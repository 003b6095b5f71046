// Lines of the table of `redllm bench ops`, and what stands where an implementation refused an op.
#include "launch/op_rows.hpp"

#include <gtest/gtest.h>

namespace red::launch {
namespace {

TEST(OpRows, ARefusalHasItsReasonInBothForms) {
  const std::string why = "no plan for this graph (GRAPH_NOT_SUPPORTED)";
  const auto row = refused_row("cross-attention, cuDNN", "q 2048 k 2048", why);
  EXPECT_EQ(row.dump(),
            R"({"op":"cross-attention, cuDNN","shape":"q 2048 k 2048","refused":")" + why + R"("})");
  const std::string line = op_table_line(row);
  EXPECT_EQ(line.substr(0, 22), "cross-attention, cuDNN");
  EXPECT_NE(line.find(" refused: " + why), std::string::npos) << line;
  EXPECT_EQ(refused_row("a", "b", "")["refused"], "no reason is known");
}

TEST(OpRows, FiguresStandBelowTheirNames) {
  const nlohmann::ordered_json row = {
      {"op", "decoder, down"}, {"shape", "m 32 n 64 k 128"}, {"runs", 2.0},  {"us", 12.5},
      {"gflops_per_s", 41.9},  {"gb_per_s", 3.25},           {"share", 0.5}, {"searched_us", 11.5}};
  const std::string head = op_table_head(true), line = op_table_line(row);
  EXPECT_EQ(head.size(), line.size()) << head << "\n" << line;
  for (const auto& [name, cell] : {std::pair("runs", "2"), std::pair(" us", "12.5"),
                                   std::pair("GFLOP/s", "41.9"), std::pair("of bound", "50.0 %")}) {
    const std::size_t end = head.find(name) + std::string(name).size(), width = std::string(cell).size();
    EXPECT_EQ(line.substr(end - width, width), cell) << head << "\n" << line;
  }
  nlohmann::ordered_json memory = row;
  memory["gflops_per_s"] = 0.0;
  memory.erase("searched_us");
  EXPECT_NE(op_table_line(memory).find(" - "), std::string::npos);
}

}  // namespace
}  // namespace red::launch

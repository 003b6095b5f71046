// Statistics of tensors, and `redllm inspect checkpoint` as a user runs it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "checkpoint/plain_checkpoint.hpp"
#include "checkpoint/tensor_statistics.hpp"
#include "integration/child_process.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;
using red::test::ChildResult;
using red::test::run_child;

/// A run's folder with one checkpoint.
class InspectTest : public testing::Test {
 protected:
  InspectTest() {
    fs::remove_all(run_);
    write_plain_checkpoint(checkpoint_);
    std::ofstream(run_ / "checkpoints/latest") << "step-00000007\n";
  }
  ~InspectTest() override { fs::remove_all(run_); }

  ChildResult inspect(const std::vector<std::string>& args) const {
    std::vector<std::string> command = {RED_BINARY_DIR "/redllm", "inspect", "checkpoint"};
    command.insert(command.end(), args.begin(), args.end());
    return run_child(command, run_);
  }

  const fs::path run_ = fs::temp_directory_path() / ("redllm-inspect-" + std::to_string(getpid()));
  const fs::path checkpoint_ = run_ / "checkpoints/step-00000007";
};

TEST_F(InspectTest, StatisticsByHand) {
  const Reader reader(checkpoint_);
  const TensorStatistics gain = statistics_of(reader, kPlainVector);
  EXPECT_EQ(gain.num_elements, 5);
  EXPECT_EQ(gain.num_nan, 0);
  EXPECT_EQ(gain.min, -4);
  EXPECT_EQ(gain.max, 0);
  EXPECT_DOUBLE_EQ(gain.rms, std::sqrt((0 + 1 + 4 + 9 + 16) / 5.0));
  const TensorStatistics state = statistics_of(reader, kPlainState);
  EXPECT_EQ(state.num_elements, 24);
  EXPECT_EQ(state.num_nan, 1);
  EXPECT_EQ(state.num_infinite, 0);
  EXPECT_EQ(state.max, 5.375);
}

TEST_F(InspectTest, StatisticsOfMoreThanOneBlock) {
  // 3 rows of 9 MiB: a block is less than a row.
  const LogicalTensor tensor{"parameters/wide", 3, 9 * (1 << 18), DType::fp32};
  std::vector<float> values(static_cast<std::size_t>(3 * tensor.cols), 2.0F);
  values[5] = -std::numeric_limits<float>::infinity();
  values[values.size() - 1] = std::numeric_limits<float>::quiet_NaN();
  const fs::path folder = run_ / "wide";
  fs::create_directories(folder);
  const std::vector<Shard> shards = {{tensor, 0, 3, 0, tensor.cols, values.data(), tensor.cols}};
  const ShardFile file{shard_file_name(0),
                       write_shard_file(folder / shard_file_name(0), {7, 56, 0, 1}, shards, [] {})};
  const TiledTensor tiled{tensor, {{whole(tensor), 0}}};
  write_index(folder / kIndexName, plain_metadata(), {&tiled, 1}, {&file, 1});
  const TensorStatistics statistics = statistics_of(Reader(folder), tensor);
  EXPECT_EQ(statistics.num_elements, 3 * tensor.cols);
  EXPECT_EQ(statistics.num_nan, 1);
  EXPECT_EQ(statistics.num_infinite, 1);
  EXPECT_EQ(statistics.max, 2.0);
  EXPECT_EQ(statistics.min, -std::numeric_limits<double>::infinity());
}

TEST_F(InspectTest, TableOfTheLatestCheckpointOfARun) {
  const ChildResult result = inspect({run_.string(), "--tensors"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const std::string gain =
      "parameters/final_norm.gain                 (5) fp32        2.4495           -4            0      0    "
      "  "
      "0\n";
  for (const char* part :
       {"checkpoints/step-00000007\n", "step         7\n", "samples      56 consumed\n",
        "written by   data 2 x tensor 1 x (encoder 0 + decoder 1)\n", "tokenizer    00ff\n",
        "files        2 shards, ", "parameters   2 tensors, 29 elements\n",
        "optimizer/v  1 tensors, 24 elements\n", "  kind = dec\n", gain.c_str()})
    EXPECT_NE(result.out.find(part), std::string::npos) << part << "\nis not in\n" << result.out;
  // Keys of other sections are no part of the model.
  EXPECT_EQ(result.out.find("steps"), std::string::npos);
}

TEST_F(InspectTest, JsonOfACheckpoint) {
  const ChildResult result = inspect({checkpoint_.string(), "--json", "--tensors"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["step"], 7);
  EXPECT_EQ(json["sample_cursor"], 56);
  EXPECT_EQ(json["model"]["name"], "plain");
  EXPECT_EQ(json["extra"]["updates"], "7");
  EXPECT_EQ(json["shard_files"].size(), 2U);
  ASSERT_EQ(json["tensors"].size(), 3U);
  const nlohmann::json& state = json["tensors"][0];
  EXPECT_EQ(state["name"], kPlainState.path);
  EXPECT_EQ(state["shape"], nlohmann::json({6, 4}));
  EXPECT_EQ(state["dtype"], "fp64");
  EXPECT_EQ(state["num_nan"], 1);
  EXPECT_EQ(state["min"], 0.0);
  EXPECT_EQ(state["max"], 5.375);
  EXPECT_EQ(json["tensors"][2]["shape"], nlohmann::json({5}));
}

TEST_F(InspectTest, DamageIsSaid) {
  fs::resize_file(checkpoint_ / "shard-00001.h5", 100);
  const ChildResult result = inspect({run_.string()});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.err.find("shard-00001.h5: 100 bytes instead of"), std::string::npos) << result.err;
  EXPECT_EQ(inspect({(run_ / "nowhere").string()}).exit_code, 2);
  EXPECT_EQ(inspect({}).exit_code, 2);
}

}  // namespace
}  // namespace red::checkpoint::test

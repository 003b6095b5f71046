// Statistics of tensors, and `redllm inspect checkpoint` as a user runs it.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <limits>
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
  const ShardRecord record = write_shard_file(folder / shard_file_name(0), {7, 56, 0, 1}, shards, [] {});
  const ShardFile file{shard_file_name(0), record.num_bytes, record.structure_crc32c};
  const TiledTensor tiled{tensor, {{whole(tensor), 0, record.tile_crc32c.at(0)}}};
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

TEST_F(InspectTest, VerifyNamesWhatIsWrong) {
  const ChildResult whole = inspect({run_.string(), "--verify"});
  EXPECT_EQ(whole.exit_code, 0) << whole.err;
  EXPECT_NE(whole.out.find("is whole: 3 tensors in 2 shard files"), std::string::npos) << whole.out;
  EXPECT_NE(whole.out.find("every byte agrees with its checksum"), std::string::npos) << whole.out;
  const ChildResult old = inspect({RED_SOURCE_DIR "/tests/checkpoint/format-1.0", "--verify"});
  EXPECT_EQ(old.exit_code, 0) << old.err;
  EXPECT_NE(old.out.find("format 1.0 has no checksums"), std::string::npos) << old.out;

  std::fstream(checkpoint_ / "shard-00000.h5", std::ios::in | std::ios::out | std::ios::binary)
      .seekp(-4, std::ios::end)
      .write("x", 1);
  fs::remove(checkpoint_ / "shard-00001.h5");
  const ChildResult damaged = inspect({run_.string(), "--verify"});
  EXPECT_EQ(damaged.exit_code, 3);
  for (const char* part : {"is not whole", "shard-00000.h5", "is damaged", "shard-00001.h5' is missing"})
    EXPECT_NE(damaged.err.find(part), std::string::npos) << part << "\nis not in\n" << damaged.err;
  const ChildResult as_json = inspect({run_.string(), "--verify", "--json"});
  EXPECT_EQ(as_json.exit_code, 3);
  const nlohmann::json json = nlohmann::json::parse(as_json.out);
  EXPECT_EQ(json["whole"], false);
  EXPECT_EQ(json["damage"].size(), 2U);
  fs::remove(checkpoint_ / "index.h5");
  const ChildResult without_index = inspect({checkpoint_.string(), "--verify"});
  EXPECT_EQ(without_index.exit_code, 3);
  EXPECT_NE(without_index.err.find("it has no index.h5"), std::string::npos) << without_index.err;
}

/// What write_in_one_file() writes.
struct Contents {
  std::vector<float> matrix = plain_rows<float>(kPlainMatrix, 0, 6),
                     vector = plain_rows<float>(kPlainVector, 0, 5);
  std::vector<double> state = plain_rows<double>(kPlainState, 0, 6);
  Metadata metadata = plain_metadata();
};

/// The plain checkpoint's contents, if they are no others, in one file, by another layout.
void write_in_one_file(const fs::path& folder, uint64_t cursor = 56, Contents contents = {}) {
  fs::create_directories(folder);
  auto& [matrix, vector, state, metadata] = contents;
  const std::vector<Shard> shards = {{kPlainMatrix, 0, 6, 0, 4, matrix.data(), 4},
                                     {kPlainState, 0, 6, 0, 4, state.data(), 4},
                                     {kPlainVector, 0, 5, 0, 1, vector.data(), 1}};
  const ShardRecord record = write_shard_file(folder / shard_file_name(0), {7, cursor, 0, 1}, shards, [] {});
  const ShardFile file{shard_file_name(0), record.num_bytes, record.structure_crc32c};
  const std::vector<TiledTensor> tensors = {
      {kPlainState, {{whole(kPlainState), 0, record.tile_crc32c[1]}}},
      {kPlainMatrix, {{whole(kPlainMatrix), 0, record.tile_crc32c[0]}}},
      {kPlainVector, {{whole(kPlainVector), 0, record.tile_crc32c[2]}}}};
  metadata.sample_cursor = cursor;
  metadata.layout = "another";
  metadata.configuration = "[model]\nname = plain\n";
  write_index(folder / kIndexName, metadata, tensors, {&file, 1});
}

TEST_F(InspectTest, DigestIsOfTheContent) {
  const auto digest = [&](const fs::path& of) {
    const ChildResult result = inspect({of.string(), "--digest"});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_EQ(result.out.size(), 65U);
    return result.out;
  };
  write_in_one_file(run_ / "other");
  const std::string expected = digest(run_);
  EXPECT_EQ(digest(run_ / "other"), expected);
  EXPECT_EQ(digest(RED_SOURCE_DIR "/tests/checkpoint/format-1.0"), expected);
  const nlohmann::json json = nlohmann::json::parse(inspect({run_.string(), "--digest", "--json"}).out);
  EXPECT_EQ(json["digest"].get<std::string>() + "\n", expected);
  write_in_one_file(run_ / "elsewhere", 57);  // in the data
  EXPECT_NE(digest(run_ / "elsewhere"), expected);
}

/// --diff finds a difference exactly where the digests differ.
TEST_F(InspectTest, DiffAgreesWithTheDigest) {
  struct Case {
    const char* told;
    std::function<void(Contents&)> change;
  };
  const std::vector<Case> cases = {
      {"3 tensors are equal, 0 differ\n", [](Contents&) {}},
      {"parameters/final_norm.gain", [](Contents& c) { c.vector[0] = -0.0F; }},
      {"optimizer/v/embedding.weight",
       [](Contents& c) { c.state[kPlainNanRow * 4 + 2] = -std::numeric_limits<double>::quiet_NaN(); }},
      {"parameters/embedding.weight", [](Contents& c) { c.matrix[3] = std::nextafter(c.matrix[3], 100.0F); }},
      {"other metadata: tokenizer_digest\n", [](Contents& c) { c.metadata.tokenizer_digest = "01ff"; }},
      {"other metadata: extra: updates\n", [](Contents& c) { c.metadata.extra["updates"] = "8"; }},
      {"other metadata: extra: more\n", [](Contents& c) { c.metadata.extra["more"] = ""; }},
      {"other metadata: extra: updates\n", [](Contents& c) { c.metadata.extra.clear(); }}};
  const std::string digest = inspect({run_.string(), "--digest"}).out;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(fmt::format("case {}: {}", i, cases[i].told));
    Contents contents;
    cases[i].change(contents);
    const fs::path other = run_ / fmt::format("other-{}", i);
    write_in_one_file(other, 56, contents);
    const ChildResult json = inspect({run_.string(), "--diff", other.string(), "--json"});
    ASSERT_EQ(json.exit_code, 0) << json.err;
    EXPECT_EQ(nlohmann::json::parse(json.out).at("equal"), i == 0);
    EXPECT_EQ(inspect({other.string(), "--digest"}).out == digest, i == 0);
    const ChildResult table = inspect({run_.string(), "--diff", other.string()});
    EXPECT_NE(table.out.find(cases[i].told), std::string::npos) << table.out;
  }
}

TEST_F(InspectTest, DiffNamesTensorsAndDistances) {
  write_in_one_file(run_ / "other");
  const ChildResult equal = inspect({run_.string(), "--diff", (run_ / "other").string()});
  EXPECT_EQ(equal.exit_code, 0) << equal.err;
  EXPECT_EQ(equal.out, "3 tensors are equal, 0 differ\n");
  // Another gain, another shape of the matrix, no state, and a tensor of its own.
  fs::remove_all(run_ / "other");
  fs::create_directories(run_ / "other");
  const LogicalTensor smaller{kPlainMatrix.path, 5, 4, DType::fp32}, own{"parameters/own", 1, 0, DType::fp32};
  std::vector<float> matrix(20), vector = {0, -1, -2, -3, -6}, one = {1};
  const std::vector<Shard> shards = {{smaller, 0, 5, 0, 4, matrix.data(), 4},
                                     {kPlainVector, 0, 5, 0, 1, vector.data(), 1},
                                     {own, 0, 1, 0, 1, one.data(), 1}};
  const ShardRecord record = write_shard_file(run_ / "other/shard-00000.h5", {7, 56, 0, 1}, shards, [] {});
  const ShardFile file{shard_file_name(0), record.num_bytes, record.structure_crc32c};
  std::vector<TiledTensor> tensors;
  for (std::size_t i = 0; i < shards.size(); ++i)
    tensors.push_back({shards[i].tensor, {{whole(shards[i].tensor), 0, record.tile_crc32c[i]}}});
  write_index(run_ / "other/index.h5", plain_metadata(), tensors, {&file, 1});
  const ChildResult result = inspect({run_.string(), "--diff", (run_ / "other").string(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json json = nlohmann::json::parse(result.out);
  EXPECT_EQ(json["equal"], false);
  ASSERT_EQ(json["different"].size(), 1U);
  const nlohmann::json& gain = json["different"][0];
  EXPECT_EQ(gain["name"], kPlainVector.path);
  EXPECT_EQ(gain["num_different"], 1);
  EXPECT_EQ(gain["largest"], 2.0);
  EXPECT_DOUBLE_EQ(gain["relative"].get<double>(), std::sqrt(4.0 / 30.0));
  EXPECT_EQ(json["only_in_first"], nlohmann::json({kPlainState.path}));
  EXPECT_EQ(json["only_in_second"], nlohmann::json({own.path}));
  EXPECT_EQ(json["other_shapes"].size(), 1U);
  const ChildResult table = inspect({run_.string(), "--diff", (run_ / "other").string()});
  for (const char* part : {"only in the first: optimizer/v/embedding.weight",
                           "of other shapes: parameters/embedding", "0 tensors are equal, 4 differ"})
    EXPECT_NE(table.out.find(part), std::string::npos) << table.out;
  EXPECT_EQ(inspect({run_.string(), "--diff", (run_ / "nowhere").string()}).exit_code, 2);
  EXPECT_EQ(inspect({run_.string(), "--diff", run_.string(), "--verify"}).exit_code, 2);
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

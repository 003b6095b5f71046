// Conversions between folders, without Python: what goes to Transformers' form and back is the same bits, and
// what must not be accepted is not.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "convert/average.hpp"
#include "convert/consolidate.hpp"
#include "convert/export_huggingface.hpp"
#include "convert/import_huggingface.hpp"
#include "convert/made_checkpoint.hpp"
#include "convert/safetensors_folder.hpp"
#include "integration/child_process.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using convert::ModelCheckpoint;
using nlohmann::json;

const std::string kProgram = RED_BINARY_DIR "/redllm";
const std::string kCheckConsolidated = RED_SOURCE_DIR "/tests/convert/check_consolidated.py";

class ConversionTest : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }

  fs::path made(const std::string& name, const Overrides& overrides, uint64_t seed = 3,
                int64_t step = 7) const {
    return make_checkpoint(path(name), overrides, initial_values(seed), step);
  }
  /// Without a tokenizer's files.
  void export_to(const fs::path& checkpoint, const std::string& name,
                 const convert::ExportOptions& options = {}) const {
    const ModelCheckpoint model(checkpoint);
    data::SpecialIds ids;
    ids.vocabulary_size = model.config().model.vocab_size;
    convert::export_huggingface(model, {{}, "none", ids}, path(name), options);
  }
  fs::path import_from(const std::string& name, const std::string& run) const {
    convert::import_huggingface(path(name), path(run));
    return *checkpoint::find_latest(path(run) / "checkpoints");
  }
  /// The error of f must say this.
  template <class E, class F>
  static void throws(const std::string& words, F f) {
    try {
      f();
      ADD_FAILURE() << "accepted, instead of: " << words;
    } catch (const E& error) {
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  }
  /// Changes config.json of an export.
  void edit_config(const std::string& name, const std::function<void(json&)>& edit) const {
    json config = json::parse(read_bytes(path(name) / "config.json"));
    edit(config);
    write_bytes(path(name) / "config.json", config.dump());
  }

  WorkingDirectory folder_;
};

void expect_same_bits(const fs::path& a, const fs::path& b) {
  const ModelCheckpoint first(a), second(b);
  ASSERT_EQ(first.parameters().size(), second.parameters().size());
  for (const model::ParameterSpec& spec : first.parameters()) {
    const std::vector<float> x = values_of(first, spec), y = values_of(second, spec);
    EXPECT_TRUE(std::equal(x.begin(), x.end(), y.begin(), [](float p, float q) {
      return std::bit_cast<uint32_t>(p) == std::bit_cast<uint32_t>(q);
    })) << spec.name;
  }
}

TEST_F(ConversionTest, ComesBackBitForBit) {
  for (const auto& [name, overrides] : {std::pair("red", small_red()), std::pair("dec", small_dec())}) {
    SCOPED_TRACE(name);
    const fs::path checkpoint = made(name, overrides);
    for (const uint64_t max_file_bytes : {uint64_t{1} << 30, uint64_t{3000}}) {
      const std::string exported = fmt::format("{}-exported-{}", name, max_file_bytes);
      export_to(checkpoint, exported, {DType::fp32, max_file_bytes});
      EXPECT_EQ(fs::exists(path(exported) / "model.safetensors"), max_file_bytes > 3000);
      EXPECT_FALSE(fs::exists(path(exported + ".partial")));
      const fs::path back = import_from(exported, exported + "-run");
      expect_same_bits(checkpoint, back);
      const checkpoint::Reader reader(back);
      EXPECT_EQ(reader.metadata().step, 7);
      EXPECT_EQ(ModelCheckpoint(back).config().model.num_heads, 2);
    }
  }
}

TEST_F(ConversionTest, MatricesAreTransposedAndNothingElse) {
  const fs::path checkpoint = made("red", small_red());
  export_to(checkpoint, "exported");
  const ModelCheckpoint model(checkpoint);
  const convert::SafetensorsFolder weights(path("exported"));
  for (const model::ParameterSpec& spec : model.parameters()) {
    SCOPED_TRACE(spec.name);
    const std::vector<float> ours = values_of(model, spec);
    std::vector<float> theirs(ours.size());
    weights.read(spec.name, 0, theirs);
    const bool as_is = spec.is_gain() || spec.name == "embedding.weight";
    EXPECT_EQ(weights.at(spec.name).rows, as_is ? spec.rows : spec.cols);
    for (int64_t i = 0; i < spec.rows; ++i) {
      for (int64_t j = 0; j < spec.cols; ++j)
        ASSERT_EQ(ours[i * spec.cols + j], theirs[as_is ? i * spec.cols + j : j * spec.rows + i])
            << i << ", " << j;
    }
  }
}

TEST_F(ConversionTest, Bf16ComesBackWidened) {
  const fs::path checkpoint = made("red", small_red());
  export_to(checkpoint, "exported", {DType::bf16, uint64_t{1} << 30});
  EXPECT_EQ(json::parse(read_bytes(path("exported") / "config.json")).at("dtype"), "bfloat16");
  EXPECT_TRUE(convert::import_huggingface(path("exported"), path("run")).widened);
  const ModelCheckpoint before(checkpoint), after(*checkpoint::find_latest(path("run") / "checkpoints"));
  for (const model::ParameterSpec& spec : before.parameters()) {
    const std::vector<float> x = values_of(before, spec), y = values_of(after, spec);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], static_cast<float>(bf16(x[i]))) << spec.name;
  }
}

TEST_F(ConversionTest, KeysOfTheModelSurvive) {
  Overrides overrides = small_red();
  overrides.insert(overrides.end(), {{"model.rope_base", "5000.5"},
                                     {"model.norm_epsilon", "1e-05"},
                                     {"model.attention_output_norm", "concat"},
                                     {"model.continuous_positions", "no"},
                                     {"data.samples", "pairs"},
                                     {"data.end_input", "no"},
                                     {"data.input_length", "33"}});
  export_to(made("red", overrides), "exported");
  const config::RunConfig config = ModelCheckpoint(import_from("exported", "run")).config();
  EXPECT_EQ(config.model.rope_base, 5000.5);
  EXPECT_EQ(config.model.norm_epsilon, 1e-5);
  EXPECT_EQ(config.model.attention_output_norm, model::AttentionOutputNorm::concat);
  EXPECT_FALSE(config.model.continuous_positions);
  EXPECT_EQ(config.data.samples, data::SampleKind::pairs);
  EXPECT_FALSE(config.data.end_input);
  EXPECT_EQ(config.data.input_length, 33);
}

TEST_F(ConversionTest, WeightsMustBeThoseOfTheConfiguration) {
  export_to(made("red", small_red()), "exported");
  const auto refused = [&](const std::string& words) {
    throws<DataError>(words, [&] { convert::import_huggingface(path("exported"), path("run")); });
    EXPECT_FALSE(fs::exists(path("run")));
    EXPECT_FALSE(fs::exists(path("run.partial")));
  };
  edit_config("exported", [](json& config) { config["decoder_layers"] = 3; });
  refused("decoder.layers.2.self_attention_norm.gain is missing");
  edit_config("exported", [](json& config) { config["decoder_layers"] = 1; });
  refused("decoder.layers.1.cross_attention.key.weight is unexpected");
  edit_config("exported", [](json& config) { config["decoder_layers"] = 2, config["d_ff"] = 25; });
  refused("is (24, 16) instead of (25, 16)");
  edit_config("exported", [](json& config) { config["d_ff"] = "many"; });
  refused("model.d_ff");
  edit_config("exported", [](json& config) { config["d_ff"] = 24, config["model_type"] = "t5"; });
  refused("only redllm and decllm");
  edit_config("exported",
              [](json& config) { config["model_type"] = "redllm", config["tie_word_embeddings"] = false; });
  refused("tie_word_embeddings");
  edit_config("exported",
              [](json& config) { config.erase("tie_word_embeddings"), config.erase("head_dim"); });
  refused("\"head_dim\" is missing");
  write_bytes(path("exported") / "config.json", "{");
  refused("is no JSON object");
  fs::remove(path("exported") / "config.json");
  refused("config.json: is missing");
  fs::create_directory(path("exported") / "config.json");
  throws<IoError>("config.json: it is a folder", [&] { import_from("exported", "again"); });
}

TEST_F(ConversionTest, NothingIsWrittenOver) {
  const fs::path checkpoint = made("red", small_red());
  fs::create_directories(path("exported"));
  throws<ConfigError>("exists already", [&] { export_to(checkpoint, "exported"); });
  export_to(checkpoint, "good");
  throws<ConfigError>("exists already", [&] { import_from("good", "exported"); });
  throws<ConfigError>("exists already",
                      [&] { convert::consolidate(ModelCheckpoint(checkpoint), path("exported"), {}); });
  throws<ConfigError>("exists already", [&] {
    convert::average({checkpoint, checkpoint}, path("exported"));
  });
  EXPECT_TRUE(fs::is_empty(path("exported")));
}

TEST_F(ConversionTest, AFolderThatCannotBeMadeLeavesNothing) {
  const fs::path checkpoint = made("red", small_red());
  fs::create_directories(path("nothing-new"));
  const fs::path blocked = path("nothing-new") / "file";
  std::ofstream(blocked) << "no folder";
  EXPECT_ANY_THROW(export_to(checkpoint, "nothing-new/file/exported"));
  EXPECT_EQ(std::distance(fs::directory_iterator(path("nothing-new")), {}), 1);
}

TEST_F(ConversionTest, TheMeanOfCheckpoints) {
  const fs::path a = made("a", small_red(), 1, 10), b = made("b", small_red(), 2, 30),
                 c = made("c", small_red(), 3, 20);
  convert::average({a / "", b, c}, path("mean"));
  const fs::path found = *checkpoint::find_latest(path("mean") / "checkpoints");
  const ModelCheckpoint mean(found), one(a), two(b), three(c);
  EXPECT_EQ(mean.reader().metadata().step, 30);
  EXPECT_EQ(mean.reader().metadata().extra.at("averaged 0"), "step-00000010");
  for (const model::ParameterSpec& spec : mean.parameters()) {
    const std::vector<float> m = values_of(mean, spec), x = values_of(one, spec), y = values_of(two, spec),
                             z = values_of(three, spec);
    for (std::size_t i = 0; i < m.size(); ++i)
      ASSERT_EQ(m[i], static_cast<float>((double{x[i]} + double{y[i]} + double{z[i]}) / 3.0)) << spec.name;
  }
  throws<ConfigError>("not of one model", [&] {
    convert::average({a, made("dec", small_dec())}, path("other"));
  });
}

/// However many checkpoints there are, the files that are open at a time stay below what a process may have.
TEST_F(ConversionTest, TheMeanOfManyCheckpointsNeedsFewFiles) {
  constexpr std::size_t most_files = 300;
  const fs::path made_once = made("once", small_dec(), 1);
  std::vector<fs::path> folders;
  for (std::size_t i = 0; i < most_files; ++i) {
    folders.push_back(path(fmt::format("copy-{}", i)));
    fs::copy(made_once, folders.back());
  }
  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  struct rlimit few = before;
  few.rlim_cur = most_files;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  for (const std::size_t count : {std::size_t{2}, std::size_t{5}, std::size_t{200}, most_files}) {
    SCOPED_TRACE(count);
    const fs::path run = path(fmt::format("mean-{}", count));
    EXPECT_NO_THROW(
        convert::average({folders.begin(), folders.begin() + static_cast<std::ptrdiff_t>(count)}, run));
    if (fs::exists(run)) expect_same_bits(made_once, *checkpoint::find_latest(run / "checkpoints"));
  }
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST_F(ConversionTest, OneFileThatH5pyReads) {
  if (std::system("/usr/bin/python3 -c 'import h5py' 2>/dev/null") != 0)
    GTEST_SKIP() << "python3-h5py is not installed";
  copy_good_inputs(folder_.path());
  // Of two ranks, with both forms of the optimizer's state.
  const ChildResult trained = run_child({RED_SOURCE_DIR "/launch/local.sh", "-n", "2", kProgram, "train",
                                         "--config=run.ini", "--train.run_dir=trained", "--parallel.data=2",
                                         "--optimizer.factored=yes", "--optimizer.min_dim_to_factor=16"},
                                        folder_.path());
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  const fs::path with_state = *checkpoint::find_latest(path("trained") / "checkpoints"),
                 made_checkpoint = made("red", small_red());
  struct Case {
    fs::path checkpoint;
    bool optimizer_state;
    const char* state;  // what check_consolidated.py expects
  };
  for (const Case& c : {Case{made_checkpoint, true, "none"}, Case{with_state, true, "with"},
                        Case{with_state, false, "without"}}) {
    const ModelCheckpoint model(c.checkpoint);
    for (const DType dtype : {DType::fp32, DType::bf16}) {
      SCOPED_TRACE(fmt::format("{} {}", c.state, name_of(dtype)));
      const fs::path file = path(fmt::format("one-{}-{}.h5", c.state, name_of(dtype)));
      convert::consolidate(model, file, {dtype, c.optimizer_state});
      const ChildResult result =
          run_child({"/usr/bin/python3", kCheckConsolidated, file.string(),
                     (c.checkpoint / "index.h5").string(), std::string(name_of(dtype)), c.state},
                    folder_.path());
      EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
      EXPECT_FALSE(fs::exists(file.string() + ".partial"));
    }
  }
}

/// 400 MiB of parameters, of which no tensor has more than 16.
TEST_F(ConversionTest, MemoryDoesNotGrowWithTheModel) {
  copy_good_inputs(folder_.path());  // for a tokenizer
  const Overrides overrides = {{"model.kind", "dec"},        {"model.vocab_size", "320"},
                               {"model.d_model", "1024"},    {"model.d_ff", "4096"},
                               {"model.num_heads", "8"},     {"model.head_dim", "128"},
                               {"model.decoder_layers", "6"}};
  make_checkpoint(path("large"), overrides, [](const model::ParameterSpec& spec, std::span<float> values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = static_cast<float>(i % 251) + static_cast<float>(spec.index);
  });
  constexpr long most_kib = 200 * 1024;
  const auto convert_by = [&](const std::string& limits, const std::vector<std::string>& args) {
    std::vector<std::string> command = {"/bin/bash", "-c",     limits + "exec \"$@\"",
                                        "bash",      kProgram, "convert"};
    command.insert(command.end(), args.begin(), args.end());
    return run_child(command, folder_.path(), 200);
  };
  const auto stays_small = [&](const std::vector<std::string>& args) {
    const ChildResult result = convert_by("", args);
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_LT(result.max_rss_kib, most_kib) << args.front();
    EXPECT_NE(result.err.find("done, "), std::string::npos) << result.err;
    RecordProperty(args.front() + "_max_rss_kib", static_cast<int>(result.max_rss_kib));
  };
  const fs::path large = *checkpoint::find_latest(path("large") / "checkpoints");
  export_to(large, "large-exported");
  struct rusage own {};
  ASSERT_EQ(::getrusage(RUSAGE_SELF, &own), 0);
  EXPECT_LT(own.ru_maxrss, most_kib);
  stays_small({"from-huggingface", "--model", "large-exported", "--out", "again"});
  stays_small({"average", "--out", "mean", "large", "again"});
  stays_small({"consolidate", "--checkpoint", "mean", "--out", "one.h5"});
  expect_same_bits(large, *checkpoint::find_latest(path("mean") / "checkpoints"));
  // Files of at most 50 MiB, as if the disk were full then: an error of its own kind, and nothing is left.
  const std::size_t before = std::distance(fs::directory_iterator(folder_.path()), {});
  for (const std::vector<std::string>& args : std::vector<std::vector<std::string>>{
           {"from-huggingface", "--model", "large-exported", "--out", "new"},
           {"to-huggingface", "--checkpoint", "large", "--tokenizer", "t.model", "--out", "new"},
           {"average", "--out", "new", "large", "again"},
           {"consolidate", "--checkpoint", "mean", "--out", "new"}}) {
    const ChildResult result = convert_by("trap '' XFSZ; ulimit -f 51200; ", args);
    EXPECT_EQ(result.exit_code, 4) << result.err;
    EXPECT_NE(result.err.find("File too large"), std::string::npos) << result.err;
    EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), before) << args.front();
  }
}

}  // namespace
}  // namespace red::test

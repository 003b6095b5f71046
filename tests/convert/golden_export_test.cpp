// Exports of the golden models, loaded by Transformers: logits against the engine's own and against float64,
// padded batches, a cache, the loss of labels, gradients; and the same model in bf16 and in several files
// (check_golden.py).
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "config/option_table.hpp"
#include "convert/export_huggingface.hpp"
#include "convert/made_checkpoint.hpp"
#include "convert/python_environment.hpp"
#include "golden/golden_engine.hpp"
#include "support/temporary_folder.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Transformers' models have no masks between documents.
bool has_documents(const GoldenStep& golden) {
  return !golden.examples.front().sample.decoder_document.empty();
}

Overrides overrides_of(const GoldenStep& golden) {
  config::RunConfig config;
  config.model = golden.model;
  Overrides overrides;
  for (const config::RunOption& option : config::run_options()) {
    if (option.section == "model") overrides.emplace_back(option.name(), option.get(config));
  }
  const bool bidirectional = golden.examples.front().sample.prefix > 0;
  if (bidirectional) overrides.emplace_back("data.bidirectional_input", "yes");
  return overrides;
}

fs::path checkpoint_of(const GoldenStep& golden, const fs::path& run_dir) {
  return make_checkpoint(run_dir, overrides_of(golden),
                         [&](const model::ParameterSpec& spec, std::span<float> values) {
                           const std::vector<double>& from = golden.parameters.at(spec.name).values;
                           std::transform(from.begin(), from.end(), values.begin(),
                                          [](double x) { return static_cast<float>(x); });
                         });
}

template <class T>
void append_bytes(const fs::path& file, const std::vector<T>& values) {
  std::ofstream out(file, std::ios::binary | std::ios::app);
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
}

json example_json(const data::Sample& sample) {
  return {{"encoder_input", sample.encoder_input},
          {"decoder_input", sample.decoder_input},
          {"decoder_target", sample.decoder_target},
          {"loss_mask", sample.loss_mask},
          {"prefix", sample.prefix}};
}

class GoldenExportTest : public testing::Test {
 protected:
  /// The engine's logits of one example, (T, V).
  static std::vector<float> engine_logits(GoldenEngine& golden_engine, const GoldenExample& example) {
    train::Engine& engine = golden_engine.engine();
    engine.hidden(micro_batches({example.sample}, Form::one_micro_batch).front());
    std::vector<float> logits(example.logits.values.size());
    engine.stages().last().logits(make_tensor(logits.data(), example.logits.rows, example.logits.cols), 0);
    return logits;
  }

  void write_case(const GoldenStep& golden, const fs::path& folder) {
    fs::create_directories(folder);
    std::vector<data::Sample> samples;
    for (const GoldenExample& example : golden.examples) samples.push_back(example.sample);
    GoldenEngine engine(mpi_, parallel::Layout{}, golden.model, golden.z_loss, {}, {samples},
                        golden.parameters);
    json content = {{"has_encoder", golden.model.has_encoder()},
                    {"vocab_size", golden.model.vocab_size},
                    {"z_loss", golden.z_loss},
                    {"gradient_norm", golden.gradient_norm}};
    for (const GoldenExample& example : golden.examples) {
      content["examples"].push_back(example_json(example.sample));
      append_bytes(folder / "engine.bin", engine_logits(engine, example));
      append_bytes(folder / "golden.bin", example.logits.values);
    }
    for (const auto& [name, gradient] : golden.gradients) {
      content["parameters"].push_back(name);
      append_bytes(folder / ("gradient." + name + ".bin"), gradient.values);
    }
    std::ofstream(folder / "case.json") << content.dump();
  }

  parallel::MpiEnvironment mpi_;
  TemporaryFolder folder_;
};

TEST_F(GoldenExportTest, TransformersComputesWhatTheEngineDoes) {
  if (!has_convert_python()) GTEST_SKIP() << kNoConvertPython;
  int num_cases = 0;
  for (const auto& path : golden_files("step")) {
    const GoldenStep golden = read_golden_step(path);
    if (has_documents(golden)) continue;
    SCOPED_TRACE(golden.name);
    const fs::path here = folder_.path() / golden.name;
    const convert::ModelCheckpoint model(checkpoint_of(golden, here / "run"));
    data::SpecialIds ids;
    ids.vocabulary_size = golden.model.vocab_size;
    ids.bos = golden.examples.front().sample.decoder_input.front();
    // Of which one file holds a third at most, or one tensor.
    const uint64_t few_bytes = model.num_bytes() / 3;
    std::vector<std::string> args;
    for (const auto& [name, options] :
         {std::pair("exported", convert::ExportOptions{}),
          std::pair("divided", convert::ExportOptions{DType::fp32, few_bytes}),
          std::pair("bf16", convert::ExportOptions{DType::bf16}),
          std::pair("bf16-divided", convert::ExportOptions{DType::bf16, few_bytes / 2})}) {
      convert::export_huggingface(model, {{}, "none", ids}, here / name, options);
      args.push_back((here / name).string());
    }
    write_case(golden, here / "case");
    args.push_back((here / "case").string());
    const ChildResult result = run_python("check_golden.py", args, folder_.path());
    EXPECT_EQ(result.exit_code, 0) << result.out << result.err;
    if (result.exit_code == 0) std::cout << golden.name << "\n" << result.out;
    ++num_cases;
  }
  EXPECT_GE(num_cases, 8);
}

}  // namespace
}  // namespace red::test

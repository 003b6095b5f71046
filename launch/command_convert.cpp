// redllm convert: checkpoints to and from Transformers, into one HDF5 file, and their mean.
#include <fmt/format.h>

#include <array>
#include <vector>

#include "base/error.hpp"
#include "base/log.hpp"
#include "config/command_line.hpp"
#include "config/nearest_match.hpp"
#include "convert/average.hpp"
#include "convert/consolidate.hpp"
#include "convert/export_huggingface.hpp"
#include "convert/import_huggingface.hpp"
#include "data/file_io.hpp"
#include "data/tokenizer.hpp"
#include "launch/commands.hpp"
#include "launch/trained_model.hpp"

namespace red::launch {
namespace {

const config::CommandOption kCheckpoint{"checkpoint", "DIR",
                                        "a checkpoint, or a run's folder: its newest (required)", false};

config::CommandSpec to_huggingface_spec() {
  return {
      .name = "convert to-huggingface",
      .usage = "--checkpoint DIR --out DIR",
      .summary =
          "Writes a checkpoint's model as a folder that Transformers loads (trust_remote_code=True): weights "
          "as\n"
          "safetensors, config.json, generation_config.json, tokenizer, and the code of the model. The "
          "folder "
          "must\n"
          "not exist; it appears whole or not at all.",
      .options =
          {kCheckpoint,
           {"out", "DIR", "the new folder (required)", false},
           {"tokenizer", "FILE", "SentencePiece model (default: data.tokenizer of the checkpoint)", false},
           {"dtype", "NAME", "of the weights: fp32, or bf16, rounded to nearest (default fp32)", false},
           {"max-file-mib", "N", "weights beyond N MiB are divided among files (default 5120)", false}},
      .example = "build/release/redllm convert to-huggingface --checkpoint runs/mine --out exported"};
}

config::CommandSpec from_huggingface_spec() {
  return {.name = "convert from-huggingface",
          .usage = "--model DIR --out RUN",
          .summary =
              "Makes a run's folder with one checkpoint out of such a folder, also after training it with "
              "Transformers.\n"
              "fp32 weights come back bit for bit, bf16 ones widened. There is no optimizer state: train on "
              "with\n"
              "checkpoint.initialize_from and checkpoint.optimizer_state = reset. Nothing of the folder is "
              "executed.",
          .options = {{"model", "DIR", "the folder with config.json and *.safetensors (required)", false},
                      {"out", "RUN", "the new run's folder (required)", false}},
          .example = "build/release/redllm convert from-huggingface --model exported --out runs/imported"};
}

config::CommandSpec consolidate_spec() {
  return {
      .name = "convert consolidate",
      .usage = "--checkpoint DIR --out FILE.h5",
      .summary = "Writes a checkpoint as one HDF5 file, each tensor a plain dataset under its own name.",
      .options = {kCheckpoint,
                  {"out", "FILE", "the new file (required)", false},
                  {"dtype", "NAME", "of parameters: fp32, or bf16, rounded to nearest (default fp32)", false},
                  {"optimizer-state", "", "the optimizer's state too, as it is", false}},
      .example =
          "build/release/redllm convert consolidate --checkpoint runs/mine --out mine.h5 --dtype bf16"};
}

config::CommandSpec average_spec() {
  return {.name = "convert average",
          .usage = "--out RUN DIR DIR...",
          .summary =
              "Makes a run's folder with one checkpoint: the mean of the parameters of several checkpoints "
              "of one\n"
              "model. Step and configuration are those of the newest; there is no optimizer state.",
          .options = {{"out", "RUN", "the new run's folder (required)", false}},
          .min_positional = 2,
          .max_positional = 1000,
          .example =
              "build/release/redllm convert average --out runs/mean "
              "runs/mine/checkpoints/step-0000{1,2,3}000"};
}

/// The value of an option that must be given.
std::string required(const config::CommandLine& line, const config::CommandSpec& spec,
                     const std::string& option) {
  if (!line.has(option) || line.get(option).empty())
    throw ConfigError("{} needs --{}: {} {}", spec.name, option, spec.name, spec.usage);
  return line.get(option);
}

DType dtype_option(const config::CommandLine& line) {
  const std::string name = line.get("dtype", "fp32");
  if (name == "fp32") return DType::fp32;
  if (name == "bf16") return DType::bf16;
  throw ConfigError("command line: --dtype {} is none of fp32, bf16", config::shown(name));
}

convert::TokenizerSource read_tokenizer(const std::filesystem::path& path) {
  const data::Tokenizer tokenizer(path);
  return {data::read_whole(path), path.string(), tokenizer.ids()};
}

int to_huggingface(std::span<const std::string> args) {
  const config::CommandSpec spec = to_huggingface_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  const std::string checkpoint = required(line, spec, "checkpoint"), out = required(line, spec, "out");
  convert::ExportOptions options;
  options.dtype = dtype_option(line);
  options.max_file_bytes = static_cast<uint64_t>(line.get_integer("max-file-mib", 5120, 1, int64_t{1} << 30))
                           << 20;
  const convert::ModelCheckpoint model(find_checkpoint(checkpoint));
  const std::string tokenizer = line.get("tokenizer", model.config().data.tokenizer.string());
  if (tokenizer.empty())
    throw ConfigError("{} names no data.tokenizer: give --tokenizer FILE", model.folder().string());
  convert::export_huggingface(model, read_tokenizer(tokenizer), out, options);
  log::info("{}: a model for Transformers", out);
  return 0;
}

int from_huggingface(std::span<const std::string> args) {
  const config::CommandSpec spec = from_huggingface_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  const std::string folder = required(line, spec, "model"), out = required(line, spec, "out");
  const convert::ImportResult result = convert::import_huggingface(folder, out);
  if (result.widened)
    log::warning("{}: weights were bf16 and are widened: not the fp32 weights that they were rounded from",
                 folder);
  if (!result.has_tokenizer)
    log::warning("{}: has no SentencePiece model; give --data.tokenizer to commands that need one", folder);
  return 0;
}

int consolidate(std::span<const std::string> args) {
  const config::CommandSpec spec = consolidate_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  const std::string checkpoint = required(line, spec, "checkpoint"), out = required(line, spec, "out");
  const convert::ModelCheckpoint model(find_checkpoint(checkpoint));
  convert::consolidate(model, out, {dtype_option(line), line.has("optimizer-state")});
  return 0;
}

int average(std::span<const std::string> args) {
  const config::CommandSpec spec = average_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  const std::string out = required(line, spec, "out");
  std::vector<std::filesystem::path> checkpoints;
  for (const std::string& checkpoint : line.positional()) checkpoints.push_back(find_checkpoint(checkpoint));
  convert::average(checkpoints, out);
  return 0;
}

}  // namespace

int run_convert(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"to-huggingface", "a folder for Transformers", to_huggingface},
      Command{"from-huggingface", "a checkpoint out of such a folder", from_huggingface},
      Command{"consolidate", "one HDF5 file", consolidate},
      Command{"average", "the mean of several checkpoints", average},
  };
  return dispatch("redllm convert", list, args);
}

}  // namespace red::launch

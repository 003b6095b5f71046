// redllm inspect: samples of a step (inspect_samples); checkpoint: what a checkpoint holds, whether it is
// whole, and how far it is from another; without a model and without MPI.
#include <algorithm>
#include <array>

#include "checkpoint/checkpoint.hpp"
#include "config/command_line.hpp"
#include "launch/commands.hpp"
#include "launch/inspect_checks.hpp"
#include "launch/inspect_print.hpp"
#include "launch/inspect_samples.hpp"
#include "launch/trained_model.hpp"

namespace red::launch {
namespace {

config::CommandSpec checkpoint_spec() {
  return {.name = "inspect checkpoint",
          .usage = "DIR [--tensors | --verify | --digest | --diff OTHER] [--json]",
          .summary =
              "Shows what a checkpoint holds: step, samples consumed, the layout that wrote it, the model, "
              "tensors.\n"
              "DIR is a checkpoint, or the folder of a run, whose latest checkpoint is taken. Opening it "
              "compares the\n"
              "index with its checksum and looks whether every shard file is there with its size; the "
              "options below\n"
              "read every byte, a few MiB at a time.",
          .options = {{"tensors", "",
                       "of each tensor: RMS, minimum, maximum, number of NaN and of infinities", false},
                      {"verify", "",
                       "compare every byte with its checksum; names all that is missing or damaged, and ends "
                       "with exit code 3 if anything is",
                       false},
                      {"digest", "",
                       "SHA-256 of step, samples, tokenizer, further state and tensors: equal whatever "
                       "layout wrote them",
                       false},
                      {"diff", "OTHER",
                       "name what differs from another checkpoint, tensors bit for bit and by how much; "
                       "nothing does where the "
                       "digests are equal",
                       false},
                      {"json", "", "one JSON object instead of a table; figures that are no numbers are null",
                       false}},
          .min_positional = 1,
          .max_positional = 1,
          .example = "redllm inspect checkpoint runs/quickstart-red --verify"};
}

int inspect_checkpoint(std::span<const std::string> args) {
  const config::CommandSpec spec = checkpoint_spec();
  const config::CommandLine line(spec, args);
  if (line.help()) return print_help(spec);
  constexpr std::array modes = {"tensors", "verify", "digest", "diff"};
  if (std::count_if(modes.begin(), modes.end(), [&](const char* mode) { return line.has(mode); }) > 1)
    throw ConfigError("command line: give one of --tensors, --verify, --digest and --diff at a time");
  const bool json = line.has("json");
  const std::string& given = line.positional().front();
  if (line.has("verify")) return verify_checkpoint(folder_to_verify(given), json);
  const std::filesystem::path folder = find_checkpoint(given);
  if (line.has("digest")) return print_digest(folder, json);
  if (line.has("diff")) return print_difference(folder, find_checkpoint(line.get("diff")), json);
  const checkpoint::Reader reader(folder);
  if (json) {
    print_json(folder, reader, line.has("tensors"));
  } else {
    print_table(folder, reader, line.has("tensors"));
  }
  return 0;
}

}  // namespace

int run_inspect(std::span<const std::string> args) {
  static constexpr std::array list = {
      Command{"checkpoint", "show, verify or compare checkpoints", inspect_checkpoint},
      Command{"samples", "show which samples a step of a run has, and how to leave them out",
              inspect_samples},
  };
  return dispatch("redllm inspect", list, args);
}

}  // namespace red::launch

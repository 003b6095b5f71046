// Checkpoints, and prompts for their models.
#include "integration/bad_input.hpp"
#include "integration/good_inputs.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

namespace fs = std::filesystem;

const std::string kNewest = "run/checkpoints/step-00000002";
const std::string kShard = kNewest + "/shard-00000.h5";
const std::string kIndex = kNewest + "/index.h5";
const std::vector<std::string> kInspect = {"inspect", "checkpoint", "run"};
const std::vector<std::string> kGenerate = {"generate", "--checkpoint", "run", "--prompt", "The"};
const std::vector<std::string> kResume = {"train", "--config", "run.ini", "--train.steps=4"};

std::vector<std::string> with(std::vector<std::string> args, std::vector<std::string> more) {
  for (std::string& arg : more) args.push_back(std::move(arg));
  return args;
}

BadInput command(std::string name, std::vector<std::string> args, std::vector<std::string> message,
                 ExitCode code) {
  return {std::move(name), {}, std::move(args), std::move(message), code, copy_good_inputs};
}

/// The good run with something done to it.
BadInput damaged(std::string name, const std::function<void(const fs::path& here)>& damage,
                 std::vector<std::string> args, std::vector<std::string> message) {
  return {std::move(name),
          {},
          std::move(args),
          std::move(message),
          ExitCode::data,
          [damage](const fs::path& here) {
            copy_good_inputs(here);
            damage(here);
          }};
}

std::function<void(const fs::path&)> cut(const std::string& file, uintmax_t num_bytes) {
  return [=](const fs::path& here) { fs::resize_file(here / file, num_bytes); };
}

/// In the middle of a shard file, which is a tensor's.
std::function<void(const fs::path&)> flip_a_bit(const std::string& file) {
  return [=](const fs::path& here) {
    std::string bytes = read_bytes(here / file);
    char& byte = bytes[bytes.size() / 2];
    byte = static_cast<char>(byte ^ 1);
    write_bytes(here / file, bytes);
  };
}

std::function<void(const fs::path&)> remove(const std::string& file) {
  return [=](const fs::path& here) { fs::remove(here / file); };
}

std::vector<BadInput> missing() {
  return {
      command("ResumeThatMustBeAndCannot",
              {"train", "--config", "run.ini", "--train.run_dir=new", "--resume", "must"},
              {"checkpoint.resume = must", "no checkpoint"}, ExitCode::configuration),
      command("ResumeThatMustNotBeAndIs", with(kResume, {"--resume", "never"}),
              {"checkpoint.resume = never", "holds checkpoints"}, ExitCode::configuration),
      command("ResumeFromNowhere", with(kResume, {"--resume", "gone"}),
              {"checkpoint.resume = gone", "no such folder"}, ExitCode::configuration),
      command("StatusOfNoFolder", {"status", "gone"}, {"'gone'", "no such folder"}, ExitCode::configuration),
      command("StatusOfWhatIsNoRun", {"status", "run/checkpoints"}, {"is no run's folder", "runs.jsonl"},
              ExitCode::configuration),
      command("TwoQuestionsToInspect", {"inspect", "checkpoint", "run", "--verify", "--digest"},
              {"one of --tensors, --verify"}, ExitCode::configuration),
      command("DifferenceFromNowhere", {"inspect", "checkpoint", "run", "--diff", "gone"}, {"'gone'"},
              ExitCode::configuration),
      command("KeepBestWithoutValidation",
              with(kResume, {"--checkpoint.keep_last=1", "--checkpoint.keep_best=1"}),
              {"checkpoint.keep_best = 1", "train.validate_every = 0"}, ExitCode::configuration),
      command("KeepEveryWhereAllStay", with(kResume, {"--checkpoint.keep_every=10"}),
              {"checkpoint.keep_every = 10", "checkpoint.keep_last = 0"}, ExitCode::configuration),
      command("NoFailureAllowed", with(kResume, {"--checkpoint.max_failures=0"}),
              {"checkpoint.max_failures", "0"}, ExitCode::configuration),
      command("AsyncThatIsNeitherOnNorOff", with(kResume, {"--checkpoint.async=maybe"}),
              {"checkpoint.async", "maybe"}, ExitCode::configuration),
      command("NoCheckpoint", {"inspect", "checkpoint", "gone"}, {"'gone'", "neither a checkpoint"},
              ExitCode::configuration),
      {"FolderWithoutCheckpoint",
       {{"x/", ""}},
       {"eval", "perplexity", "--checkpoint", "x"},
       {"'x'", "neither a checkpoint"}},
      {"FileAsCheckpoint",
       {{"x", "text"}},
       {"generate", "--checkpoint", "x", "--prompt", "The"},
       {"'x'", "neither a checkpoint"}},
      damaged("MissingShard", remove(kShard), kInspect, {kNewest, "damaged", "shard-00000.h5"}),
      damaged("PointerToNothing",
              [](const fs::path& here) { write_bytes(here / "run/checkpoints/latest", "step-00000009\n"); },
              kInspect, {"latest", "step-00000009", "not there"}),
      damaged("EmptyPointer", cut("run/checkpoints/latest", 0), kInspect, {"latest", "empty"}),
      damaged("UnfinishedSave",
              [](const fs::path& here) { fs::rename(here / kNewest, here / "step-00000002.partial"); },
              {"inspect", "checkpoint", "step-00000002.partial"},
              {"step-00000002.partial", "never finished"}),
  };
}

std::vector<BadInput> damages() {
  return {
      damaged("TextAsIndex", [](const fs::path& here) { write_bytes(here / kIndex, "text"); }, kInspect,
              {kIndex, "damaged", "CRC-32C"}),
      damaged("TruncatedIndexOfACheckpoint", cut(kIndex, 3000), kGenerate, {kIndex, "damaged", "CRC-32C"}),
      damaged("ShardAsIndex",
              [](const fs::path& here) {
                fs::copy_file(here / kShard, here / kIndex, fs::copy_options::overwrite_existing);
              },
              kInspect, {kIndex, "damaged", "CRC-32C"}),
      damaged("TruncatedShard", cut(kShard, 5000), {"eval", "perplexity", "--checkpoint", "run"},
              {kNewest, "shard-00000.h5", "5000 bytes"}),
      damaged("CheckpointWithoutTheChecksumOfItsIndex", remove(kNewest + "/index.crc32c"), kInspect,
              {kNewest, "index.crc32c", "missing"}),
      damaged("FlippedBitInAShard", flip_a_bit(kShard), kGenerate, {kShard, "damaged", "CRC-32C"}),
      damaged("VerificationOfAFlippedBit", flip_a_bit(kShard), {"inspect", "checkpoint", "run", "--verify"},
              {kNewest, "not whole", "shard-00000.h5", "CRC-32C"}),
      damaged("ResumeFromAFlippedBit", flip_a_bit(kShard), kResume,
              {kNewest, "set aside as 'step-00000002.damaged-1'", "CRC-32C", "none that is whole"}),
      damaged("ResumeFromADamagedFolderByName", flip_a_bit(kShard), with(kResume, {"--resume", kNewest}),
              {kNewest, "this checkpoint is damaged", "CRC-32C"}),
      damaged("ResumeFromAMissingShard", remove(kShard), kResume, {kNewest, "shard-00000.h5"}),
      damaged("ResumeFromATruncatedShard", cut(kShard, 5000), kResume, {kNewest, "shard-00000.h5"}),
  };
}

std::vector<BadInput> of_another_model() {
  return {
      command("EvaluationOfAnotherWidth", {"eval", "perplexity", "--checkpoint", "run", "--model.d_model=32"},
              {"embedding.weight", "(320, 16)", "(320, 32)", "another model"}, ExitCode::data),
      command("GenerationWithMoreLayers", with(kGenerate, {"--model.decoder_layers=2"}),
              {kNewest, "no tensor", "decoder.layers.1."}, ExitCode::data),
      command("ResumeOfAnotherModel", with(kResume, {"--model.d_ff=32"}),
              {kNewest, "another configuration", "model.d_ff = 32", "24"}, ExitCode::configuration),
      command("ResumeOfOtherWindows", with(kResume, {"--data.window=16"}),
              {"another configuration", "data.window = 16", "32"}, ExitCode::configuration),
      command("ResumeWithAnotherWeight", with(kResume, {"--data.source.wiki.weight=2"}),
              {"another configuration", "data.source.wiki.weight = 2, in the checkpoint 1"},
              ExitCode::configuration),
      command("ResumeWithAnotherSource", with(kResume, {"--data.source.more.tokens=wiki_heldout"}),
              {"another configuration", "[data.source.NAME] of wiki, more, in the checkpoint of wiki"},
              ExitCode::configuration),
      command("ResumeOnOtherData", with(kResume, {"--data.source.wiki.tokens=wiki_heldout"}),
              {kNewest, "other data", "contents of data.source.wiki", "8 documents", "32 documents"},
              ExitCode::data),
      command("InitializationFromNothing",
              {"train", "--config", "run.ini", "--train.run_dir=new", "--checkpoint.initialize_from=gone"},
              {"checkpoint.initialize_from = gone", "neither a checkpoint"}, ExitCode::configuration),
      command("InitializationFromAnotherModel",
              {"train", "--config", "run.ini", "--train.run_dir=new", "--checkpoint.initialize_from=run",
               "--model.d_ff=32"},
              {kNewest, "another configuration", "model.d_ff = 32, in the checkpoint 24"},
              ExitCode::configuration),
      command("ResumeFromNoFolder", with(kResume, {"--checkpoint.resume=gone"}),
              {"checkpoint.resume = gone", "no such folder"}, ExitCode::configuration),
      command("ResumeFromAFolderThatIsNoCheckpoint", with(kResume, {"--checkpoint.resume=run"}),
              {"'run'", "no checkpoint", "index.h5"}, ExitCode::data),
      command("ResumeThatMust", with(kResume, {"--checkpoint.resume=must", "--train.run_dir=new"}),
              {"checkpoint.resume = must", "new/checkpoints"}, ExitCode::configuration),
      command("ResumeThatNever", with(kResume, {"--checkpoint.resume=never"}),
              {"checkpoint.resume = never", "run/checkpoints"}, ExitCode::configuration),
      damaged("ResumeThatWouldNeedAnIndex", remove(kIndex), kResume, {kNewest, "index.h5"}),
  };
}

/// A file for --prompts. Options and files are looked at before ranks start.
BadInput prompts(std::string name, const std::string& file, std::string bytes,
                 std::vector<std::string> message, ExitCode code = ExitCode::data) {
  return {std::move(name),
          {{file, std::move(bytes)}},
          {"generate", "--checkpoint", "run", "--prompts", file},
          std::move(message),
          code,
          copy_good_inputs};
}

std::vector<BadInput> wrong_prompt_files() {
  const std::string good = "{\"text\": \"The\"}\n";
  return {
      prompts("EmptyFileOfPrompts", "x.txt", "", {"--prompts x.txt", "empty"}),
      prompts("BlankLineAmongPrompts", "x.txt", "The\n\nA\n", {"x.txt:2", "prompt is empty"}),
      prompts("PromptLineThatIsNoUtf8", "x.txt", "The\ncaf\xe9\n", {"x.txt:2", "invalid UTF-8 at byte 3"}),
      prompts("PromptLineThatIsNoJson", "x.jsonl", good + "The\n", {"x.jsonl:2", "not a JSON object"}),
      prompts("PromptLineThatIsCutOff", "x.jsonl", good + good + "{\"text\": \"Th",
              {"x.jsonl:3", "JSON object"}),
      prompts("BlankLineAmongJsonPrompts", "x.jsonl", good + "\n" + good, {"x.jsonl:2", "not a JSON object"}),
      prompts("PromptLineWithoutText", "x.jsonl", good + "{\"body\": \"The\"}\n", {"x.jsonl:2", "\"text\""}),
      prompts("PromptTextThatIsNoString", "x.jsonl", "{\"text\": 3}\n", {"x.jsonl:1", "string \"text\""}),
      prompts("PromptTextThatIsEmpty", "x.jsonl", good + "{\"text\": \"\"}\n",
              {"x.jsonl:2", "prompt is empty"}),
      prompts("TwoPromptsInOneLine", "x.ndjson", good + "{\"text\": \"The\", \"prompt\": \"A\"}\n",
              {"x.ndjson:2", "both \"text\" and \"prompt\""}),
      command("MissingFileOfPrompts", {"generate", "--checkpoint", "run", "--prompts", "gone.jsonl"},
              {"--prompts gone.jsonl", "cannot be read"}, ExitCode::data),
      command("FolderOfPrompts", {"generate", "--checkpoint", "run", "--prompts", "run"},
              {"--prompts run", "cannot be read"}, ExitCode::data),
  };
}

std::vector<BadInput> wrong_sampling() {
  const auto row = [](std::string name, const std::string& option, const std::string& value) {
    return command(std::move(name), with(kGenerate, {option, value}), {option, "'" + value + "'"},
                   ExitCode::configuration);
  };
  return {
      row("NegativeTemperature", "--temperature", "-1"),
      row("TemperatureThatIsNoNumber", "--temperature", "nan"),
      row("NegativeTopK", "--top-k", "-1"),
      row("TopPAboveOne", "--top-p", "1.5"),
      row("NegativeTopP", "--top-p", "-0.1"),
      row("BatchOfNothing", "--batch", "0"),
      row("NoNewTokens", "--max-tokens", "0"),
      row("NegativeSeed", "--seed", "-1"),
      command("TopPOfZero", with(kGenerate, {"--top-p", "0"}), {"top-p 0", "above 0"},
              ExitCode::configuration),
  };
}

std::vector<BadInput> wrong_prompts() {
  const std::vector<std::string> generate = {"generate", "--checkpoint", "run"};
  return {
      command("NoPrompt", generate, {"--prompt TEXT"}, ExitCode::configuration),
      command("EmptyPrompt", with(generate, {"--prompt", ""}), {"prompt is empty"}, ExitCode::data),
      command("MissingPromptFile", with(generate, {"--prompt-file", "gone.txt"}), {"gone.txt"},
              ExitCode::data),
      command("PromptThatIsNoUtf8", with(generate, {"--prompt", "caf\xe9"}), {"invalid UTF-8", "byte 3"},
              ExitCode::data),
      command("GenerationWithoutCheckpoint", {"generate", "--prompt", "The"}, {"--checkpoint DIR"},
              ExitCode::configuration),
  };
}

}  // namespace

std::vector<BadInput> bad_checkpoints() {
  std::vector<BadInput> all;
  for (const auto& group :
       {missing(), damages(), of_another_model(), wrong_prompts(), wrong_prompt_files(), wrong_sampling()})
    all.insert(all.end(), group.begin(), group.end());
  return all;
}

}  // namespace red::test

#include "integration/good_inputs.hpp"

#include <stdexcept>
#include <vector>

#include "integration/child_process.hpp"
#include "integration/plain_text.hpp"
#include "integration/working_directory.hpp"

namespace red::test {
namespace {

const char* const kRun = R"([model]
kind = red
vocab_size = 320
d_model = 16
d_ff = 24
num_heads = 2
head_dim = 8
encoder_layers = 1
decoder_layers = 1
[train]
steps = 2
global_batch = 2
micro_batch = 1
threads = 1
run_dir = run
[schedule]
warmup_steps = 1
[data]
tokenizer = t.model
window = 32
[data.source.wiki]
tokens = wiki
held_out = wiki_heldout
)";

void run(const std::vector<std::string>& args, const std::filesystem::path& folder) {
  std::vector<std::string> command = {RED_BINARY_DIR "/redllm"};
  command.insert(command.end(), args.begin(), args.end());
  const ChildResult result = run_child(command, folder);
  if (result.exit_code != 0) throw std::runtime_error("redllm " + args.front() + ": " + result.err);
}

const std::filesystem::path& good_inputs() {
  static const WorkingDirectory folder({{"wiki.jsonl", json_lines(0, 40)}, {"run.ini", kRun}});
  static const bool made = [] {
    run({"tokenizer", "train", "--out", "t.model", "--vocab-size", std::to_string(kGoodVocabulary),
         "wiki.jsonl"},
        folder.path());
    run({"data", "build", "--tokenizer", "t.model", "--out", "wiki", "--held-out", "0.2", "wiki.jsonl"},
        folder.path());
    run({"train", "--config", "run.ini"}, folder.path());
    return true;
  }();
  (void)made;
  return folder.path();
}

}  // namespace

void copy_good_inputs(const std::filesystem::path& to) {
  std::filesystem::copy(good_inputs(), to, std::filesystem::copy_options::recursive);
}

}  // namespace red::test

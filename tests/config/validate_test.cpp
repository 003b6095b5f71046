#include "config/validate.hpp"

#include <gtest/gtest.h>

#include "config_files.hpp"

namespace red::config {
namespace {

using test::config_error;

using Overrides = std::vector<std::pair<std::string, std::string>>;

/// A configuration that trains, with changes.
Loaded with(const Overrides& changes) {
  Sources sources;
  sources.overrides = {{"model.d_model", "64"},        {"model.d_ff", "128"},
                       {"model.num_heads", "2"},       {"model.head_dim", "32"},
                       {"model.encoder_layers", "2"},  {"model.decoder_layers", "2"},
                       {"train.steps", "100"},         {"train.global_batch", "8"},
                       {"train.micro_batch", "2"},     {"train.run_dir", "run"},
                       {"schedule.warmup_steps", "5"}, {"data.window", "64"},
                       {"data.tokenizer", "t.model"},  {"data.source.wiki.tokens", "wiki"}};
  sources.overrides.insert(sources.overrides.end(), changes.begin(), changes.end());
  return load(sources);
}

TEST(Validate, AcceptsAWholeConfiguration) {
  for (const Use use : {kModelUse, kTrainUse, kBenchUse}) EXPECT_NO_THROW(validate(with({}), use));
  EXPECT_NO_THROW(validate(
      with({{"model.kind", "dec"}, {"model.encoder_layers", "0"}, {"data.window", "62"}}), kTrainUse));
  EXPECT_NO_THROW(validate(
      with({{"train.validate_every", "10"}, {"data.source.wiki.held_out", "wiki_heldout"}}), kTrainUse));
  EXPECT_NO_THROW(validate(with({{"parallel.data", "4"}, {"parallel.encoder_stages", "1"}}), kTrainUse));
  EXPECT_NO_THROW(
      validate(with({{"schedule.total_steps", "101"}, {"schedule.warmup_steps", "100"}}), kTrainUse));
  EXPECT_NO_THROW(
      validate(with({{"schedule.kind", "constant"}, {"schedule.warmup_steps", "500"}}), kTrainUse));
}

TEST(Validate, AsksForWhatEachUseNeeds) {
  const Loaded nothing = load({});
  EXPECT_TRUE(
      config_error([&] { validate(nothing, kModelUse); })
          .starts_with("not given, and without a default: model.d_model, model.d_ff, model.num_heads, "
                       "model.decoder_layers; set them in a file"));
  EXPECT_NE(config_error([&] { validate(nothing, kModelUse); }).find("--config configs/models/red_150m.ini"),
            std::string::npos);
  Sources sources;
  for (const char* key :
       {"model.d_model", "model.d_ff", "model.num_heads", "model.decoder_layers", "model.encoder_layers"})
    sources.overrides.emplace_back(key, "2");
  EXPECT_NO_THROW(validate(load(sources), kModelUse));
  EXPECT_TRUE(
      config_error([&] {
        validate(load(sources), kBenchUse);
      }).starts_with("not given, and without a default: train.global_batch, train.micro_batch; set them"));
  EXPECT_TRUE(config_error([&] { validate(load(sources), kTrainUse); })
                  .starts_with("not given, and without a default: train.steps, train.global_batch, "
                               "train.micro_batch, train.run_dir, data.tokenizer; set them"));
}

struct Contradiction {
  Overrides changes;
  std::string message;
};

class Contradictions : public testing::TestWithParam<Contradiction> {};

TEST_P(Contradictions, IsRefusedWithPlaceAndRemedy) {
  const std::string message = config_error([&] { validate(with(GetParam().changes), kTrainUse); });
  EXPECT_TRUE(message.starts_with(GetParam().message)) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, Contradictions,
    testing::Values(
        Contradiction{{{"train.validate_every", "10"}},
                      "train.validate_every = 10 (command line): no source has held-out token files; give "
                      "one in its section, held_out = PREFIX, or as --data.source.wiki.held_out=PREFIX"},
        Contradiction{
            {{"train.global_batch", "9"}},
            "train.global_batch = 9 (command line): not a multiple of train.micro_batch = 2 (command "
            "line) x parallel.data = 1 (default); 8 or 10 would do"},
        Contradiction{
            {{"train.global_batch", "5"}, {"parallel.data", "4"}},
            "train.global_batch = 5 (command line): not a multiple of train.micro_batch = 2 (command "
            "line) x parallel.data = 4 (command line); 8 would do"},
        Contradiction{{{"data.window", "63"}}, "command line: data.window = 63: it must be even"},
        Contradiction{{{"data.source.books.tokens", "b"}, {"data.source.books.weight", "1e-9"}},
                      "command line: data.source.books.weight = 1e-09: its share of 1e-09 gives no sample"},
        Contradiction{
            {{"data.bidirectional_input", "yes"}},
            "data.bidirectional_input = yes (command line): a RedLLM's encoder is bidirectional anyway"},
        Contradiction{{{"schedule.total_steps", "50"}},
                      "schedule.total_steps = 50 (command line): the cosine ends before train.steps = 100"},
        Contradiction{
            {{"schedule.warmup_steps", "100"}},
            "schedule.warmup_steps = 100 (command line): the warm-up has to end before the cosine does, at "
            "step 100 (train.steps = 100 (command line)); 10 would do"},
        Contradiction{{{"model.head_dim", "33"}}, "command line: model.head_dim = 33: must be even"},
        Contradiction{{{"model.encoder_layers", "0"}}, "command line: model.encoder_layers = 0: "},
        Contradiction{{{"model.kind", "dec"}}, "command line: model.encoder_layers = 2: a DecLLM"},
        Contradiction{
            {{"model.kind", "dec"}, {"model.encoder_layers", "0"}, {"parallel.encoder_stages", "1"}},
            "command line: parallel.encoder_stages = 1: a DecLLM has no encoder"},
        Contradiction{{{"parallel.encoder_stages", "3"}},
                      "command line: parallel.encoder_stages = 3: each stage needs a layer, and "
                      "model.encoder_layers = 2; nearest"},
        Contradiction{{{"parallel.encoder_stages", "1"}, {"parallel.decoder_stages", "3"}},
                      "command line: parallel.decoder_stages = 3: each stage needs a layer, and "
                      "model.decoder_layers = 2"},
        Contradiction{
            {{"parallel.decoder_stages", "2"}},
            "parallel.encoder_stages = 0: the encoder shares the decoder's stage only where there is one"},
        Contradiction{
            {{"parallel.tensor", "3"}},
            "command line: parallel.tensor = 3: each tensor rank needs a head, and model.num_heads = 2"},
        Contradiction{
            {{"parallel.encoder_stages", "2"}, {"parallel.encoder_split", "2,1"}},
            "command line: parallel.encoder_split = 2,1: needs one positive number of layers for each of "
            "parallel.encoder_stages = 2, 2 in all"},
        Contradiction{{{"parallel.schedule", "interleaved"},
                       {"parallel.encoder_stages", "1"},
                       {"parallel.virtual_stages", "1"}},
                      "parallel.virtual_stages = 1 (command line): parallel.schedule = interleaved (command "
                      "line) takes 2 or more chunks on each stage; with one it is 1f1b"},
        Contradiction{
            {{"parallel.schedule", "zb_h1"},
             {"parallel.encoder_stages", "1"},
             {"parallel.virtual_stages", "2"}},
            "parallel.virtual_stages = 2 (command line): only with parallel.schedule = interleaved, "
            "and parallel.schedule = zb_h1 (command line)"},
        Contradiction{{{"parallel.schedule", "interleaved"}},
                      "parallel.schedule = interleaved (command line): there is nothing to interleave on one "
                      "stage (parallel.encoder_stages = 0"},
        Contradiction{
            {{"parallel.schedule", "interleaved"}, {"parallel.encoder_stages", "2"}},
            "command line: parallel.encoder_stages = 2 of parallel.virtual_stages = 2: the model has "
            "2 encoder layers (model.encoder_layers), and each chunk of a stage needs at least one; "
            "use at most 1 stages"},
        Contradiction{
            {{"parallel.schedule", "interleaved"},
             {"parallel.encoder_stages", "1"},
             {"parallel.encoder_split", "2"}},
            "command line: parallel.encoder_split = 2: needs one positive number of layers for each "
            "of parallel.encoder_stages = 1 of parallel.virtual_stages = 2, 2 in all"},
        Contradiction{
            {{"parallel.data", "1000000"}, {"parallel.tensor", "1000000"}},
            "parallel.data = 1000000 (command line): with parallel.tensor = 1000000 (command line) this"},
        Contradiction{{{"train.steps", "1099511627776"}, {"train.global_batch", "2147483648"}},
                      "train.steps = 1099511627776 (command line): with train.global_batch = 2147483648 "
                      "(command line)"},
        Contradiction{{{"data.source.books.weight", "2"}},
                      "command line: [data.source.books] names no tokens; give tokens = PREFIX there"}));

TEST(Validate, WantsASourceToTrain) {
  Sources sources;
  sources.overrides = {{"model.d_model", "64"},       {"model.d_ff", "128"},         {"model.num_heads", "2"},
                       {"model.encoder_layers", "2"}, {"model.decoder_layers", "2"}, {"train.steps", "9000"},
                       {"train.global_batch", "2"},   {"train.micro_batch", "2"},    {"train.run_dir", "run"},
                       {"data.tokenizer", "t.model"}};
  EXPECT_TRUE(
      config_error([&] { validate(load(sources), kTrainUse); }).starts_with("no source of data is given"));
  EXPECT_NO_THROW(validate(load(sources), kBenchUse));
}

TEST(Validate, AReturnNeedsCheckpointsThatReachBackFarEnough) {
  const Overrides on = {{"train.spike_threshold", "6"}, {"checkpoint.every", "50"}};
  EXPECT_NO_THROW(validate(with(on), kTrainUse));
  Overrides few = on;
  few.emplace_back("checkpoint.keep_last", "3");
  EXPECT_EQ(
      config_error([&] { validate(with(few), kTrainUse); }),
      "checkpoint.keep_last = 3 (command line): with checkpoint.every = 50 (command line) the checkpoints "
      "that stay do not reach back 111 steps, which train.spike_back = 100 (default) and "
      "train.max_skipped_steps = 10 (default) may ask for; keep 4");
  few.back().second = "4";
  EXPECT_NO_THROW(validate(with(few), kTrainUse));
  EXPECT_TRUE(
      config_error([&] {
        validate(with({{"train.spike_threshold", "6"}}), kTrainUse);
      }).starts_with("train.spike_threshold = 6 (command line): there is no checkpoint to go back to"));
}

TEST(Validate, SamplesThatAreLeftOutAreRanges) {
  EXPECT_EQ(with({{"data.skip_samples", "7,1-3"}}).config.data.skip_samples.to_string(), "1-3,7");
  EXPECT_NE(config_error([] {
              with({{"data.skip_samples", "3-1"}});
            }).find("ends before it begins"),
            std::string::npos);
}

}  // namespace
}  // namespace red::config

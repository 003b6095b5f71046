#include "config/parse.hpp"

#include <gtest/gtest.h>

#include "config_files.hpp"

namespace red::config {
namespace {

using test::config_error;
using test::ConfigFiles;

Loaded load_files(std::vector<std::filesystem::path> files,
                  std::vector<std::pair<std::string, std::string>> overrides = {}) {
  return load({.base = {}, .files = std::move(files), .overrides = std::move(overrides)});
}

std::string message_of(const std::string& text) {
  const ConfigFiles files;
  const auto path = files.write("x.ini", text);
  std::string message = config_error([&] { load_files({path}); });
  // Without the folder, whose name is random.
  const std::string folder = files.folder().string() + "/";
  for (std::size_t at = 0; (at = message.find(folder)) != std::string::npos;)
    message.erase(at, folder.size());
  return message;
}

TEST(Load, SetsEveryKindOfValue) {
  const ConfigFiles files;
  const Loaded loaded =
      load_files({files.write("x.ini",
                              "[model]\nname = my-model_1.0\nkind = dec\nd_model = 768\nrope_base = 5e5\n"
                              "attention_output_norm = after_wo\ninit_seed = 18446744073709551615\n"
                              "[parallel]\nschedule = zb_h1\n"
                              "[train]\nthreads = 3\nrun_dir = /runs/one two\ngemm = onednn\n"
                              "[optimizer]\nfactored = on\n[data]\nmissing_eod = add\n"
                              "[checkpoint]\nresume = never\n")});
  const RunConfig& c = loaded.config;
  EXPECT_EQ(c.model.name, "my-model_1.0");
  EXPECT_EQ(c.model.kind, model::Kind::dec);
  EXPECT_EQ(c.model.d_model, 768);
  EXPECT_EQ(c.model.rope_base, 5e5);
  EXPECT_EQ(c.model.attention_output_norm, model::AttentionOutputNorm::after_wo);
  EXPECT_EQ(c.model.init_seed, UINT64_MAX);
  EXPECT_EQ(c.pipeline_schedule, parallel::PipelineSchedule::zero_bubble_h1);
  EXPECT_EQ(c.train.threads, 3);
  EXPECT_EQ(c.train.run_dir, "/runs/one two");
  EXPECT_EQ(c.train.gemm, "onednn");
  EXPECT_TRUE(c.optimizer.factored);
  EXPECT_EQ(c.data.missing_eod, data::MissingEod::add);
  EXPECT_EQ(c.checkpoint.resume, "never");
  EXPECT_EQ(c.model.vocab_size, 32768);  // not given: the default
  EXPECT_EQ(loaded.origin("model.vocab_size"), "default");
}

TEST(Load, OutputNormDependsOnTheKindUnlessGiven) {
  EXPECT_EQ(load_files({}, {{"model.kind", "red"}}).config.model.attention_output_norm,
            model::AttentionOutputNorm::head);
  EXPECT_EQ(load_files({}, {{"model.kind", "dec"}}).config.model.attention_output_norm,
            model::AttentionOutputNorm::none);
  EXPECT_EQ(load_files({}, {{"model.kind", "dec"}, {"model.attention_output_norm", "head"}})
                .config.model.attention_output_norm,
            model::AttentionOutputNorm::head);
}

TEST(Load, LaterWinsAndTheCommandLineWinsOverAll) {
  const ConfigFiles files;
  const auto included =
      files.write("included.ini", "[train]\nsteps = 1\nmicro_batch = 1\nthreads = 1\nlog_every = 1");
  const auto first = files.write(
      "first.ini", "include = included.ini\n[train]\nmicro_batch = 2\nthreads = 2\nlog_every = 2");
  const auto second = files.write("second.ini", "[train]\nthreads = 3\nlog_every = 3");
  const Loaded loaded = load_files({first, second}, {{"train.log_every", "9"}, {"train.log_every", "4"}});
  EXPECT_EQ(loaded.config.train.steps, 1);
  EXPECT_EQ(loaded.config.train.micro_batch, 2);
  EXPECT_EQ(loaded.config.train.threads, 3);
  EXPECT_EQ(loaded.config.train.log_every, 4);  // the last on the command line
  EXPECT_EQ(loaded.origin("train.steps"), included.string() + ":2");
  EXPECT_EQ(loaded.origin("train.micro_batch"), first.string() + ":3");
  EXPECT_EQ(loaded.origin("train.threads"), second.string() + ":2");
  EXPECT_EQ(loaded.origin("train.log_every"), "command line");
}

TEST(Load, AStoredConfigurationIsBelowAllFiles) {
  const ConfigFiles files;
  const auto file = files.write("x.ini", "[train]\nthreads = 3");
  const Loaded loaded =
      load({.base = std::pair{std::string("[train]\nthreads = 2\nsteps = 7\n"), std::string("index.h5")},
            .files = {file},
            .overrides = {}});
  EXPECT_EQ(loaded.config.train.threads, 3);
  EXPECT_EQ(loaded.config.train.steps, 7);
  EXPECT_EQ(loaded.origin("train.steps"), "index.h5:3");
}

TEST(Load, ALaterFileReplacesASourceWhole) {
  const ConfigFiles files;
  const auto first = files.write("first.ini",
                                 "[data.source.wiki]\ntokens = w\nheld_out = wh\nweight = 2\n"
                                 "[data.source.books]\ntokens = b\n");
  const auto second =
      files.write("second.ini", "[data.source.code]\ntokens = c\n[data.source.wiki]\ntokens = w2\n");
  const auto sources = load_files({first, second}, {{"data.source.books.weight", "5"}}).config.data.sources;
  ASSERT_EQ(sources.size(), 3U);
  EXPECT_EQ(sources[0].name, "wiki");  // its place stays
  EXPECT_EQ(sources[0].tokens, "w2");
  EXPECT_EQ(sources[0].held_out, "");  // nothing is left of first.ini's
  EXPECT_EQ(sources[0].weight, 1);
  EXPECT_EQ(sources[1].name, "books");
  EXPECT_EQ(sources[1].tokens, "b");
  EXPECT_EQ(sources[1].weight, 5);  // one key, from the command line
  EXPECT_EQ(sources[2].name, "code");
}

TEST(Load, NamesTheNearestMatchOfUnknownKeys) {
  EXPECT_EQ(message_of("[model]\nd_modle = 4"),
            "x.ini:2: unknown key 'model.d_modle'; did you mean 'model.d_model'?");
  EXPECT_EQ(message_of("[Train]\nsteps = 4"), "x.ini:1: unknown section [Train]; did you mean 'train'?");
  EXPECT_EQ(message_of("[trian]\nsteps = 4"), "x.ini:1: unknown section [trian]; did you mean 'train'?");
  EXPECT_EQ(message_of("[optimizer]\nz_loss = 0"),
            "x.ini:2: unknown key 'optimizer.z_loss'; did you mean 'train.z_loss'?");
  EXPECT_EQ(message_of("[train]\nlr = 0.1"),
            "x.ini:2: unknown key 'train.lr'; did you mean 'schedule.peak'?");
  EXPECT_EQ(message_of("steps = 4"), "x.ini:1: unknown key 'steps'; did you mean 'train.steps'?");
  EXPECT_EQ(message_of("[data.source.wiki]\nweigth = 4"),
            "x.ini:2: unknown key 'data.source.wiki.weigth'; did you mean 'data.source.wiki.weight'?");
  EXPECT_EQ(message_of("[data.source.wiki]\npath = x"),
            "x.ini:2: unknown key 'data.source.wiki.path'; did you mean 'data.source.wiki.tokens'?");
  EXPECT_EQ(message_of("[bench]\nquux_frobnicate = 1"),
            "x.ini:2: unknown key 'bench.quux_frobnicate'; [bench] has steps, warmup_steps");
  EXPECT_EQ(message_of("[data.source]\ntokens = x"),
            "x.ini:1: unknown section [data.source]; a source is [data.source.NAME], NAME without dots");
}

TEST(Load, SaysWhatIsWrongWithAValue) {
  EXPECT_EQ(message_of("[model]\nd_model = 10x4"),
            "x.ini:2: model.d_model = 10x4: is not a whole number; d_model takes an integer, 1 to 1048576");
  EXPECT_EQ(message_of("[model]\nd_model = 0"),
            "x.ini:2: model.d_model = 0: is out of range: allowed is 1 to 1048576");
  EXPECT_EQ(message_of("[model]\nd_model ="),
            "x.ini:2: model.d_model = : is not a whole number; d_model takes an integer, 1 to 1048576");
  EXPECT_EQ(message_of("[model]\nd_model = 99999999999999999999"),
            "x.ini:2: model.d_model = 99999999999999999999: is too large or too small for a number; d_model "
            "takes an "
            "integer, 1 to 1048576");
  EXPECT_EQ(message_of("[model]\ninit_seed = -1"),
            "x.ini:2: model.init_seed = -1: must not be negative; init_seed takes an integer, >= 0");
  EXPECT_EQ(message_of("[schedule]\npeak = nan"),
            "x.ini:2: schedule.peak = nan: is not a finite number; peak takes a number, above 0 to 1000000");
  EXPECT_EQ(message_of("[model]\nkind = rad"),
            "x.ini:2: model.kind = rad: is none of red | dec; did you mean 'red'?");
  EXPECT_EQ(message_of("[optimizer]\nfactored = maybe"),
            "x.ini:2: optimizer.factored = maybe: is neither yes nor no (also allowed: true, false, on, off, "
            "1, 0)");
  EXPECT_EQ(message_of("[model]\nname = a b"),
            "x.ini:2: model.name = a b: holds other characters than letters, digits, '.', '_' and '-'");
  EXPECT_EQ(message_of("[data.source.wiki]\nweight = 0"),
            "x.ini:2: data.source.wiki.weight = 0: is out of range: allowed is above 0 to 1000000000000");
}

TEST(Load, ReportsAllMistakesAtOnceButNotWithoutEnd) {
  EXPECT_EQ(message_of("[model]\nd_modle = 4\nd_ff = x\n[trian]\nsteps = 4\n"),
            "x.ini:4: unknown section [trian]; did you mean 'train'?\n"
            "x.ini:2: unknown key 'model.d_modle'; did you mean 'model.d_model'?\n"
            "x.ini:3: model.d_ff = x: is not a whole number; d_ff takes an integer, 1 to 1048576");
  std::string many = "[model]\n";
  for (int i = 0; i < 50; ++i) many += "strange_" + std::to_string(i) + " = 1\n";
  const std::string message = message_of(many);
  EXPECT_TRUE(message.ends_with("\n... and 40 more mistakes")) << message;
}

}  // namespace
}  // namespace red::config

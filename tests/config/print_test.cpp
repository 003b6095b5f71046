#include "config/print.hpp"

#include <gtest/gtest.h>

#include <random>

#include "config/option_table.hpp"
#include "config_files.hpp"

namespace red::config {
namespace {

using test::ConfigFiles;

/// Every field that the table knows, as text.
std::vector<std::string> all_values(const RunConfig& config) {
  std::vector<std::string> values;
  for (const RunOption& option : run_options()) values.push_back(option.name() + " = " + option.get(config));
  for (const data::SourceConfig& source : config.data.sources) {
    values.push_back(source.name);
    for (const SourceOption& option : source_options()) values.push_back(option.get(source));
  }
  return values;
}

Loaded load_text(const std::string& text) {
  return load({.base = std::pair{text, std::string("printed")}, .files = {}, .overrides = {}});
}

TEST(PrintEffective, NamesTheOriginOfEveryKey) {
  const ConfigFiles files;
  const auto file =
      files.write("x.ini", "[train]\nsteps = 3\n[data.source.wiki]\ntokens = a b #c\nweight = 2");
  const std::string text =
      print_effective(load({.base = {}, .files = {file}, .overrides = {{"train.threads", "2"}}}));
  const auto has_line = [&](const std::string& line) {
    return text.find("\n" + line + "\n") != std::string::npos;
  };
  EXPECT_TRUE(has_line("steps = 3                                # " + file.string() + ":2")) << text;
  EXPECT_TRUE(has_line("threads = 2                              # command line")) << text;
  EXPECT_TRUE(has_line("log_every = 1                            # default")) << text;
  EXPECT_TRUE(has_line("# micro_batch is not given")) << text;
  EXPECT_TRUE(has_line("[data.source.wiki]")) << text;
  EXPECT_TRUE(has_line("tokens = a b                             # " + file.string() + ":4")) << text;
}

TEST(PrintEffective, ComesBackWithoutAnyKey) {
  const Loaded loaded = load({});
  EXPECT_EQ(all_values(load_text(print_effective(loaded)).config), all_values(loaded.config));
}

/// A text that this option accepts, drawn at random.
std::string random_value(const OptionInfo& option, std::mt19937_64& random) {
  const std::vector<std::string> paths = {"a",           "/x/y z", " lead", "#1", "q\"uote",
                                          "back\\slash", "tab\t#", "=",     "[s]"};
  if (!option.choices.empty()) return option.choices[random() % option.choices.size()];
  if (option.type == "yes or no") return random() % 2 == 0 ? "yes" : "no";
  if (option.type == "name") return "name-" + std::to_string(random() % 1000);
  if (option.type == "path") return paths[random() % paths.size()];
  if (option.type == "list") return fmt::format("{},{}", 1 + random() % 9, 1 + random() % 9);
  if (option.type == "integer") return std::to_string(2 + random() % 4000);
  return fmt::format("{}", std::uniform_real_distribution<double>(1e-9, 0.999)(random));
}

TEST(PrintEffective, ComesBackWithEveryKeySetAtRandom) {
  std::mt19937_64 random(11);
  for (int trial = 0; trial < 50; ++trial) {
    Sources sources;
    for (const RunOption& option : run_options()) {
      // Have ranges of their own.
      if (option.name() == "model.rope_base" || option.name() == "train.spike_window") continue;
      if (random() % 3 != 0) sources.overrides.emplace_back(option.name(), random_value(option, random));
    }
    for (const std::string source : {"one", "two", "three"}) {
      for (const SourceOption& option : source_options())
        sources.overrides.emplace_back("data.source." + source + "." + option.key,
                                       random_value(option, random));
    }
    const Loaded loaded = load(sources);
    const std::string text = print_effective(loaded);
    const Loaded again = load_text(text);
    EXPECT_EQ(all_values(again.config), all_values(loaded.config)) << text;
    EXPECT_EQ(again.config.data.sources.size(), 3U);
  }
}

}  // namespace
}  // namespace red::config

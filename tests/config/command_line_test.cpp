#include "config/command_line.hpp"

#include <gtest/gtest.h>

#include "config_files.hpp"

namespace red::config {
namespace {

using test::config_error;
using Words = std::vector<std::string>;

CommandSpec spec() {
  return {.name = "try",
          .usage = "FILE",
          .summary = "Tries things.",
          .options = {{"json", "", "one JSON line", false},
                      {"prompt", "TEXT", "the prompt", false},
                      {"text", "FILE", "a text", true},
                      {"top-k", "N", "candidates", false}},
          .takes_config = true,
          .max_positional = 1,
          .example = "redllm try x"};
}

std::string refusal(const Words& words) {
  return config_error([&] { CommandLine(spec(), words); });
}

TEST(CommandLine, TakesOptionsConfigurationAndWords) {
  const Words words = {"--json",
                       "--config=a.ini",
                       "--train.steps=5",
                       "--prompt",
                       "--odd value",
                       "--text=x",
                       "--text",
                       "y",
                       "--config",
                       "b.ini",
                       "word",
                       "--train.steps",
                       "6",
                       "--data.source.wiki.tokens=t=1",
                       "--data.source.wiki.held_out="};
  const CommandLine line(spec(), words);
  EXPECT_FALSE(line.help());
  EXPECT_TRUE(line.has("json"));
  EXPECT_FALSE(line.has("top-k"));
  EXPECT_EQ(line.get("prompt"), "--odd value");
  EXPECT_EQ(line.get("top-k", "40"), "40");
  EXPECT_EQ(line.get_all("text"), (Words{"x", "y"}));
  EXPECT_EQ(line.positional(), Words{"word"});
  EXPECT_EQ(line.sources().files, (std::vector<std::filesystem::path>{"a.ini", "b.ini"}));
  const std::vector<std::pair<std::string, std::string>> overrides = {{"train.steps", "5"},
                                                                      {"train.steps", "6"},
                                                                      {"data.source.wiki.tokens", "t=1"},
                                                                      {"data.source.wiki.held_out", ""}};
  EXPECT_EQ(line.sources().overrides, overrides);
}

TEST(CommandLine, EverythingBehindTwoDashesIsAWord) {
  EXPECT_EQ(CommandLine(spec(), Words{"--json", "--", "--prompt"}).positional(), Words{"--prompt"});
  EXPECT_FALSE(CommandLine(spec(), Words{"--", "--help"}).help());
}

TEST(CommandLine, HelpWinsOverMistakes) {
  EXPECT_TRUE(CommandLine(spec(), Words{"--nonsense", "--help"}).help());
  EXPECT_TRUE(CommandLine(spec(), Words{"-h"}).help());
  const std::string text = help_text(spec());
  for (const char* part : {"usage: redllm try [--config FILE]...", "--top-k=N", "a text", "redllm try x",
                           "--model.d_model=N", "--data.source.NAME.tokens=PATH", "must be given"})
    EXPECT_NE(text.find(part), std::string::npos) << part;
}

TEST(CommandLine, NumbersAreChecked) {
  const CommandLine line(spec(), Words{"--top-k=40", "--prompt=0.5"});
  EXPECT_EQ(line.get_integer("top-k", 1, 1, 100), 40);
  EXPECT_EQ(line.get_integer("absent", 7, 1, 100), 7);
  EXPECT_EQ(line.get_number("prompt", 1, 0, 1), 0.5);
  EXPECT_EQ(config_error([&] { line.get_integer("top-k", 1, 1, 10); }),
            "command line: --top-k: '40' is out of range: allowed is 1 to 10");
  EXPECT_EQ(config_error([&] { line.get_integer("prompt", 1, 1, 10); }),
            "command line: --prompt: '0.5' is not a whole number");
}

TEST(CommandLine, RefusesWithTheNearestMatch) {
  const std::string more = " (redllm try --help lists all)";
  EXPECT_EQ(refusal({"--jsn"}), "command line: unknown option '--jsn'; did you mean '--json'?" + more);
  EXPECT_EQ(refusal({"--top_k=3"}), "command line: unknown option '--top_k'; did you mean '--top-k'?" + more);
  EXPECT_EQ(refusal({"--confg", "x"}),
            "command line: unknown option '--confg'; did you mean '--config'?" + more);
  EXPECT_EQ(refusal({"--lr=1"}),
            "command line: unknown option '--lr'; did you mean '--schedule.peak'?" + more);
  EXPECT_EQ(refusal({"-j"}), "command line: unknown option '-j'" + more);
  EXPECT_EQ(refusal({"--train.stps=3"}),
            "command line: unknown key 'train.stps'; did you mean 'train.steps'? (redllm try --help lists "
            "all keys)");
  EXPECT_EQ(refusal({"--data.source.wiki.tokns", "3"}),
            "command line: unknown key 'data.source.wiki.tokns'; did you mean 'data.source.wiki.tokens'? "
            "(redllm try "
            "--help lists all keys)");
  // No guessing of prefixes.
  EXPECT_EQ(refusal({"--js"}), "command line: unknown option '--js'" + more);
}

TEST(CommandLine, RefusesMissingAndSurplusValues) {
  EXPECT_EQ(
      refusal({"--prompt"}),
      "command line: the required argument for option '--prompt' is missing (redllm try --help tells more)");
  EXPECT_EQ(refusal({"--json=1"}),
            "command line: option '--json' does not take any arguments (redllm try --help tells more)");
  EXPECT_EQ(refusal({"a", "b"}), "command line: 'b' is one word too many; usage: redllm try FILE");
  EXPECT_EQ(refusal({"--prompt=a", "--prompt=b"}),
            "command line: --prompt is given twice; keep one of the two");
  CommandSpec strict = spec();
  strict.min_positional = 1;
  EXPECT_EQ(config_error([&] { CommandLine(strict, Words{}); }),
            "command line: something is missing; usage: redllm try FILE");
}

TEST(CommandLine, WithoutConfigurationItsKeysAreUnknown) {
  CommandSpec plain = spec();
  plain.takes_config = false;
  EXPECT_EQ(config_error([&] { CommandLine(plain, Words{"--train.steps=5"}); }),
            "command line: unknown option '--train.steps' (redllm try --help lists all)");
  EXPECT_EQ(help_text(plain).find("model.d_model"), std::string::npos);
}

}  // namespace
}  // namespace red::config

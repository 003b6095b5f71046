#include "config/reference.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <sstream>

#include "config/option_table.hpp"

namespace red::config {
namespace {

TEST(Reference, TheDocumentationIsInStepWithTheTable) {
  std::ifstream file(RED_SOURCE_DIR "/docs/configuration.md");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_EQ(text.str(), configuration_markdown())
      << "make it anew: redllm config docs > docs/configuration.md";
}

TEST(Reference, EveryKeyOfTheTableIsWholeAndUnique) {
  std::set<std::string> names, section_names;
  for (const SectionInfo& section : sections()) section_names.insert(section.name);
  const auto check = [&](const OptionInfo& option) {
    EXPECT_TRUE(names.insert(option.name()).second) << option.name() << " stands twice";
    EXPECT_TRUE(section_names.contains(option.section)) << option.name();
    EXPECT_FALSE(option.type.empty()) << option.name();
    EXPECT_TRUE(option.help.ends_with(".")) << option.name();
    EXPECT_NE(help_of_keys().find("--" + option.name() + "="), std::string::npos) << option.name();
  };
  for (const RunOption& option : run_options()) check(option);
  for (const SourceOption& option : source_options()) check(option);
}

TEST(Reference, DefaultsAreAllowedValues) {
  for (const RunOption& option : run_options()) {
    if (option.needed_for != 0) continue;
    RunConfig config;
    EXPECT_EQ(option.set(config, option.default_text), "") << option.name() << " = " << option.default_text;
    EXPECT_EQ(option.get(config), option.default_text) << option.name();
  }
}

/// The getter of each key reads what its setter wrote, and no other key's field.
TEST(Reference, EveryKeyHasAFieldOfItsOwn) {
  for (const RunOption& option : run_options()) {
    RunConfig config;
    const std::string other = !option.choices.empty()      ? option.choices.back()
                              : option.type == "yes or no" ? (option.default_text == "yes" ? "no" : "yes")
                              : option.type == "integer"   ? "77"
                              : option.type == "list"      ? "7,77"
                              : option.name() == "model.rope_base" ? "77"
                              : option.type == "number"            ? "0.77"
                                                                   : "other";
    ASSERT_EQ(option.set(config, other), "") << option.name();
    for (const RunOption& one : run_options())
      EXPECT_EQ(one.get(config), one.name() == option.name() ? other : one.get(RunConfig{})) << option.name();
  }
}

}  // namespace
}  // namespace red::config

#include "config/ini_file.hpp"

#include <gtest/gtest.h>

#include <random>

#include "config_files.hpp"

namespace red::config {
namespace {

using test::config_error;
using test::ConfigFiles;
using testing::Test;

TEST(ScanIni, KeepsValueFileAndLineOfEveryKey) {
  const IniFile file = scan_ini(
      "\xef\xbb\xbf# a comment\r\n"
      "\r\n"
      "[train]\r\n"
      "  steps=10   # ten\r\n"
      "; another comment\n"
      "run_dir =\t/runs/c#/one  \n"
      "[ data.source.wiki ] # a corpus\n"
      "tokens = \"a # b \\\\ \\\"c\\\" \" # quoted\n"
      "held_out =\n"
      "weight = 1 #",
      "x.ini");
  ASSERT_EQ(file.entries.size(), 5U);
  EXPECT_EQ(file.entries[0].name, "train.steps");
  EXPECT_EQ(file.entries[0].value, "10");
  EXPECT_EQ(file.entries[0].place, (Place{"x.ini", 4}));
  EXPECT_EQ(file.entries[0].place.to_string(), "x.ini:4");
  EXPECT_EQ(file.entries[1].value, "/runs/c#/one");
  EXPECT_EQ(file.entries[2].name, "data.source.wiki.tokens");
  EXPECT_EQ(file.entries[2].value, "a # b \\ \"c\" ");
  EXPECT_EQ(file.entries[3].value, "");
  EXPECT_EQ(file.entries[4].value, "1");
  ASSERT_EQ(file.sections.size(), 2U);
  EXPECT_EQ(file.sections[1].name, "data.source.wiki");
  EXPECT_EQ(file.sections[1].place.line, 7);
}

TEST(ScanIni, QuotingComesBackWhateverTheValue) {
  for (const std::string value : {"plain", "", " lead", "trail ", "#hash", "a #b", "a#b", "\"", "\\",
                                  "\"a\" # \\", "a\tb", "=", "\xc3\xa4"}) {
    const IniFile file = scan_ini("[s]\nk = " + ini_quoted(value) + "   # origin", "x.ini");
    ASSERT_EQ(file.entries.size(), 1U);
    EXPECT_EQ(file.entries[0].value, value);
  }
}

TEST(ScanIni, RefusesWhatIsNoIni) {
  struct Case {
    std::string text, message;
  };
  const std::vector<Case> cases = {
      {"[a]\nx = 1\nx = 2", "x.ini:3: a.x is already set in line 2 of this file"},
      {"[a]\nx = 1\n[b]\n[a]\nx = 2", "x.ini:5: a.x is already set in line 2 of this file"},
      {"a.x = 1\n[a]\nx = 2", "x.ini:3: a.x is already set in line 1 of this file"},
      {"[a\nx = 1", "x.ini:1: '[a' opens a section but does not end with ']'"},
      {"[]", "x.ini:1: '' is no section name"},
      {"[a b]", "x.ini:1: 'a b' is no section name"},
      {"[a..b]", "x.ini:1: 'a..b' is no section name"},
      {"[a]\nsteps 10 # ten", "x.ini:2: 'steps 10 ' is neither 'key = value' nor '[section]' nor a comment"},
      {"= 5", "x.ini:1: '= 5' is neither"},
      {"[a]\nx = \"open", "x.ini:2: the value has no closing quote"},
      {"[a]\nx = \"a\\n\"", "x.ini:2: in quotes a backslash stands before"},
      {"[a]\nx = \"a\" b", "x.ini:2: 'b' after the closing quote"},
      {std::string("[a]\nx = \0", 9), "x.ini:2: byte 0x00 does not belong into text"},
      {"\x7f"
       "ELF\x02\x01",
       "x.ini:1: byte 0x7f does not belong into text"},
      {"[a]\nx = " + std::string(5000, 'y'), "x.ini:2: the line has 5004 bytes, more than 4096"},
      {"include = other.ini", "x.ini:1: a configuration that is stored inside another file cannot include"},
  };
  for (const Case& one : cases) {
    const std::string message = config_error([&] { scan_ini(one.text, "x.ini"); });
    EXPECT_TRUE(message.starts_with(one.message)) << message;
  }
}

TEST(ScanIni, AnyBytesGiveKeysOrAConfigError) {
  const std::string pieces[] = {"[train]\n",
                                "steps = 1\n",
                                "x = \"a\\\"b\" # c\n",
                                "[data.source.w]\r\n",
                                "=",
                                "[",
                                "]",
                                "\"",
                                "\\",
                                "#",
                                "\n",
                                "include = a\n",
                                ".",
                                " ",
                                "\xff"};
  std::mt19937 random(5);
  int refused = 0, read = 0;
  for (int trial = 0; trial < 5000; ++trial) {
    std::string text;
    for (unsigned i = random() % 8; i > 0; --i) text += pieces[random() % std::size(pieces)];
    if (!text.empty() && random() % 4 == 0) text[random() % text.size()] = static_cast<char>(random() % 256);
    try {
      for (const IniEntry& entry : scan_ini(text, "x").entries) EXPECT_FALSE(entry.name.empty());
      ++read;
    } catch (const ConfigError& error) {
      EXPECT_TRUE(std::string(error.what()).starts_with("x:")) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
  EXPECT_GT(read, 500);
}

TEST(ReadIni, PutsIncludesBeforeTheFileThatNamesThem) {
  const ConfigFiles files;
  files.write("sizes/small.ini", "[a]\nx = 1");
  files.write("models/m.ini", "include = ../sizes/small.ini\n[a]\nx = 2");
  files.write("more.ini", "[a]\nx = 3");
  const auto top = files.write(
      "top.ini", "# first\ninclude = models/m.ini\ninclude = \"more.ini\"\n[b]\ninclude = no path\n");
  const std::vector<IniFile> read = read_ini(top);
  ASSERT_EQ(read.size(), 4U);
  EXPECT_EQ(read[0].entries[0].value, "1");
  EXPECT_EQ(read[0].entries[0].place.file,
            (files.folder() / "sizes/small.ini").string());  // not models/../sizes
  EXPECT_EQ(read[1].entries[0].value, "2");
  EXPECT_EQ(read[2].entries[0].value, "3");
  EXPECT_EQ(read[3].entries[0].name, "b.include");  // a key like any other inside a section
}

TEST(ReadIni, RefusesFilesThatCannotBeRead) {
  const ConfigFiles files;
  files.write("red_150m.ini", "");
  const std::string folder = files.folder().string();
  const auto read = [&](const std::string& name) {
    return config_error([&] { read_ini(files.folder() / name); });
  };
  EXPECT_EQ(read("rde_150m.ini"), "command line: --config " + folder +
                                      "/rde_150m.ini: there is no such file; did you mean 'red_150m.ini'?");
  EXPECT_NE(read(".").find("this is a folder"), std::string::npos);
  files.write("big.ini", std::string(kMaxIniBytes + 1, '\n'));
  EXPECT_NE(read("big.ini").find("larger than 1 MiB"), std::string::npos);
  EXPECT_NE(config_error([] { read_ini("/dev/zero"); }).find("no regular file"), std::string::npos);
  files.write("missing.ini", "\n\ninclude = gone.ini\n");
  EXPECT_EQ(read("missing.ini"), folder + "/missing.ini:3: include = gone.ini: there is no such file");
  files.write("empty.ini", "include =\n");
  EXPECT_EQ(read("empty.ini"), folder + "/empty.ini:1: include names no file");
}

TEST(ReadIni, RefusesCirclesAndAvalanches) {
  const ConfigFiles files;
  files.write("a.ini", "include = b.ini");
  files.write("b.ini", "\ninclude = ./a.ini");
  std::string message = config_error([&] { read_ini(files.folder() / "a.ini"); });
  EXPECT_NE(message.find(
                "b.ini:2: include = ./a.ini: files include each other in a circle: a.ini -> b.ini -> a.ini"),
            std::string::npos)
      << message;
  files.write("self.ini", "include = self.ini");
  message = config_error([&] { read_ini(files.folder() / "self.ini"); });
  EXPECT_NE(message.find("self.ini -> self.ini"), std::string::npos) << message;
  // 2^12 files by twelve levels of two includes.
  for (int i = 0; i < 12; ++i) {
    const std::string next = std::to_string(i + 1) + ".ini\n";
    files.write(std::to_string(i) + ".ini", fmt::format("include = {0}include = {0}", next));
  }
  files.write("12.ini", "");
  message = config_error([&] { read_ini(files.folder() / "0.ini"); });
  EXPECT_NE(message.find("more than 256 files"), std::string::npos) << message;
  for (int i = 0; i < 20; ++i)
    files.write("deep" + std::to_string(i) + ".ini", "include = deep" + std::to_string(i + 1) + ".ini");
  message = config_error([&] { read_ini(files.folder() / "deep0.ini"); });
  EXPECT_NE(message.find("nested deeper than 16"), std::string::npos) << message;
}

TEST(ReadIni, TheSameFileTwiceSideBySideIsNoCircle) {
  const ConfigFiles files;
  files.write("base.ini", "[a]\nx = 1");
  files.write("left.ini", "include = base.ini");
  files.write("right.ini", "include = base.ini");
  EXPECT_EQ(read_ini(files.write("top.ini", "include = left.ini\ninclude = right.ini")).size(), 5U);
}

}  // namespace
}  // namespace red::config

// Log lines: who speaks, and in which form.
#include "base/log.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace red::test {
namespace {

class Log : public testing::Test {
 protected:
  ~Log() override {
    log::set_rank(0, 1);
    log::set_level(log::Level::info);
  }

  static std::string lines_of(const std::function<void()>& action) {
    testing::internal::CaptureStderr();
    action();
    return testing::internal::GetCapturedStderr();
  }
  /// The only line, without its time.
  static std::string text_of(const std::function<void()>& action) {
    const std::string line = lines_of(action);
    const auto is_digit = [&](std::size_t i) { return line[i] >= '0' && line[i] <= '9'; };
    const bool has_time = line.size() > 9 && is_digit(0) && is_digit(1) && line[2] == ':' && is_digit(3) &&
                          is_digit(4) && line[5] == ':' && is_digit(6) && is_digit(7) && line[8] == ' ';
    if (!has_time || line.find('\n') != line.size() - 1) return "not one line with a time: " + line;
    return line.substr(9, line.size() - 10);
  }
};

TEST_F(Log, LinesCarryTheirLevel) {
  EXPECT_EQ(text_of([] { log::info("{} windows", 3); }), "3 windows");
  EXPECT_EQ(text_of([] { log::warning("source {} left out", "wiki"); }), "warning: source wiki left out");
  EXPECT_EQ(text_of([] { log::rank_error("lost"); }), "error: lost");
}

TEST_F(Log, RankZeroSpeaksForTheRun) {
  log::set_rank(0, 4);
  EXPECT_EQ(text_of([] { log::info("starting"); }), "starting");
  log::set_rank(2, 4);
  EXPECT_EQ(lines_of([] { log::info("starting"); }), "");
  EXPECT_EQ(lines_of([] { log::warning("starting"); }), "");
}

TEST_F(Log, ALineOfOneRankSaysWhichUnlessThereIsOnlyOne) {
  log::set_rank(2, 4);
  EXPECT_EQ(text_of([] { log::rank_warning("slow"); }), "rank 2 warning: slow");
  log::set_rank(0, 1);
  EXPECT_EQ(text_of([] { log::rank_warning("slow"); }), "warning: slow");
}

TEST_F(Log, LowerLevelsCanBeSilenced) {
  log::set_level(log::Level::error);
  EXPECT_EQ(lines_of([] {
              log::info("a");
              log::warning("b");
              log::rank_warning("c");
            }),
            "");
  EXPECT_EQ(text_of([] { log::rank_error("d"); }), "error: d");
  EXPECT_EQ(lines_of([] { log::write(log::Level::debug, true, "e"); }), "");
  log::set_level(log::Level::debug);
  EXPECT_EQ(text_of([] { log::write(log::Level::debug, true, "e"); }), "debug: e");
}

}  // namespace
}  // namespace red::test

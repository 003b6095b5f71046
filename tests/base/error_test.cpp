// Errors: each kind has the exit code that README.md promises, and a broken check says what, where and with
// which operands.
#include "base/error.hpp"

#include <gtest/gtest.h>

#include "base/check.hpp"

namespace red::test {
namespace {

template <class E>
void expect_kind(ExitCode code, int number) {
  try {
    throw E("{} of {}: {:.2f}", 3, "wiki", 0.125);
  } catch (const Error& error) {  // as main catches it
    EXPECT_STREQ(error.what(), "3 of wiki: 0.12");
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(static_cast<int>(error.code()), number);
    EXPECT_NE(dynamic_cast<const E*>(&error), nullptr);
  }
}

TEST(Errors, HaveTheExitCodesOfTheReadme) {
  EXPECT_EQ(static_cast<int>(ExitCode::ok), 0);
  expect_kind<LogicError>(ExitCode::internal, 1);
  expect_kind<ConfigError>(ExitCode::configuration, 2);
  expect_kind<DataError>(ExitCode::data, 3);
  expect_kind<IoError>(ExitCode::io, 4);
  expect_kind<NumericalError>(ExitCode::numerical, 5);
  expect_kind<CommunicationError>(ExitCode::communication, 6);
  EXPECT_EQ(static_cast<int>(ExitCode::watchdog), 8);
  expect_kind<CheckpointError>(ExitCode::checkpoint, 7);
}

/// A user's text is an argument, never the format.
TEST(Errors, TakeBracesOfAnArgumentAsTheyAre) {
  EXPECT_STREQ(DataError("{}: unreadable", "{0}.jsonl").what(), "{0}.jsonl: unreadable");
}

std::string message_of_check(int rows, int cols) {
  try {
    RED_CHECK(rows == cols, "rows {} cols {}", rows, cols);
  } catch (const LogicError& error) {
    return error.what();
  }
  return "";
}

TEST(Check, SaysExpressionPlaceAndOperands) {
  EXPECT_EQ(message_of_check(2, 2), "");
  const std::string message = message_of_check(2, 3);
  // Without the folder of the checkout, so that builds in two folders are the same.
  EXPECT_NE(message.find("tests/base/error_test.cpp:"), std::string::npos) << message;
  EXPECT_EQ(message.find(RED_SOURCE_DIR), std::string::npos) << message;
  EXPECT_TRUE(message.ends_with(": rows == cols does not hold: rows 2 cols 3")) << message;
}

TEST(Check, NeedsNoOperands) {
  try {
    RED_CHECK(1 + 1 == 3);
    ADD_FAILURE() << "the check let a false condition pass";
  } catch (const LogicError& error) {
    EXPECT_TRUE(std::string(error.what()).ends_with(": 1 + 1 == 3 does not hold")) << error.what();
  }
}

TEST(Check, EvaluatesTheConditionOnceAndOperandsOnlyWhenItFails) {
  int conditions = 0, operands = 0;
  const auto operand = [&] { return ++operands; };
  RED_CHECK(++conditions == 1, "{}", operand());
  EXPECT_EQ(conditions, 1);
  EXPECT_EQ(operands, 0);
  EXPECT_THROW(RED_CHECK(++conditions == 1, "{}", operand()), LogicError);
  EXPECT_EQ(conditions, 2);
  EXPECT_EQ(operands, 1);
}

}  // namespace
}  // namespace red::test

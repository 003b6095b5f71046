// Deadlines of the threads of one process, and what is written when one passes.
#include "parallel/watchdog.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <thread>

#include "support/temporary_folder.hpp"

namespace red::parallel {
namespace {

const std::filesystem::path kNowhere;

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

void sleep_ms(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
}

constexpr double kLong = 1000;
const MainWait kNoWait{false, kLong, 0, ""};

TEST(Watchdog, NamesACallThatIsLate) {
  Watchdog watchdog({kLong, 0.1, kNowhere}, 3, "rank 3 on n1");
  const watch::Thread watched("main thread");
  const watch::Activity activity("reading samples");
  const watch::BlockingPoint reading("reading", "wiki.bin");
  EXPECT_FALSE(watchdog.look(kNoWait));
  sleep_ms(200);
  const auto late = watchdog.look(kNoWait);
  ASSERT_TRUE(late);
  EXPECT_TRUE(late->starts_with(
      "rank 3 on n1: its main thread is stuck: reading samples, reading 'wiki.bin' since 0."))
      << *late;
  EXPECT_TRUE(late->ends_with("more than the 0.1 s allowed")) << *late;
}

// As after SIGSTOP and SIGCONT: nobody looked meanwhile.
TEST(Watchdog, ASuspendedProcessHasItsTimeAgain) {
  Watchdog watchdog({kLong, 0.1, kNowhere}, 3, "rank 3 on n1");
  const watch::Thread watched("main thread");
  const watch::BlockingPoint reading("reading", "wiki.bin");
  EXPECT_FALSE(watchdog.look(kNoWait));
  sleep_ms(3300);
  EXPECT_FALSE(watchdog.look(kNoWait));
  sleep_ms(200);
  EXPECT_TRUE(watchdog.look(kNoWait));
}

TEST(Watchdog, ComputationHasItsOwnDeadline) {
  Watchdog watchdog({0.1, kLong, kNowhere}, 0, "rank 0 on n1");
  const watch::Thread watched("main thread");
  {
    const watch::BlockingPoint reading("reading", "wiki.bin");
    sleep_ms(200);
    EXPECT_FALSE(watchdog.look(kNoWait));
  }
  sleep_ms(200);
  EXPECT_FALSE(watchdog.look(kNoWait));  // outside of a step it may take what it takes
  const watch::Activity activity("forward");
  EXPECT_FALSE(watchdog.look(kNoWait));
  sleep_ms(200);
  EXPECT_TRUE(watchdog.look(kNoWait));
}

TEST(Watchdog, WaitsOfTheMainThreadAreNotItsBusiness) {
  Watchdog watchdog({0.1, 0.1, kNowhere}, 0, "rank 0 on n1");
  const watch::Thread watched("main thread");
  const watch::Activity activity("forward");
  sleep_ms(200);
  EXPECT_FALSE(watchdog.look({true, kLong, 0, "norm"}));
  EXPECT_FALSE(watchdog.look({false, 0.01, 0, "norm"}));  // it has just ended a wait
  const auto late = watchdog.look({true, kLong, 0.2, "norm"});
  ASSERT_TRUE(late);
  EXPECT_NE(late->find("in a call of MPI that does not return, for norm"), std::string::npos) << *late;
}

TEST(Watchdog, WithoutDeadlinesThereIsNothingToWatch) {
  EXPECT_FALSE(Watchdog({}, 0, "rank 0 on n1").watches());
  EXPECT_TRUE(Watchdog({1, 2, kNowhere}, 0, "rank 0 on n1").watches());
}

TEST(Watchdog, AppendsReportsWithStacks) {
  const test::TemporaryFolder run;
  Watchdog watchdog({1, 1, run.path() / "watchdog"}, 3, "rank 3 on n1");
  const watch::Thread watched("main thread");
  watch::at_step(12);
  const watch::Activity activity("forward");
  for (const char* failure : {"the first", "the second"}) {
    watchdog.take_stacks();
    watchdog.write_report(failure, "waits for norm");
  }
  const std::string text = text_of(run.path() / "watchdog" / "rank_3.txt");
  for (const char* part :
       {"rank 3 on n1", "\nthe first\nwaits for norm\n", "\nthe second\n", "main thread, state R",
        "step 12, forward since", "red::parallel::Watchdog::take_stacks()"})
    EXPECT_NE(text.find(part), std::string::npos) << part << " in:\n" << text;
}

TEST(Watchdog, WritesTheEndOfARunThatBegan) {
  const test::TemporaryFolder run;
  Watchdog({1, 1, run.path() / "watchdog"}, 0, "rank 0 on n1").write_end(8);
  EXPECT_EQ(text_of(run.path() / "watchdog" / "ended"), "8\n");
  Watchdog({1, 1, run.path() / "never" / "watchdog"}, 0, "rank 0 on n1").write_end(8);
  EXPECT_FALSE(std::filesystem::exists(run.path() / "never"));
}

// Opening a pipe that nobody reads waits for ever, as a network disk does.
TEST(Watchdog, ADiskThatDoesNotAnswerHoldsNobodyUp) {
  const test::TemporaryFolder run;
  std::filesystem::create_directory(run.path() / "watchdog");
  ASSERT_EQ(mkfifo((run.path() / "watchdog" / "ended").c_str(), 0600), 0);
  const auto begin = std::chrono::steady_clock::now();
  Watchdog({1, 1, run.path() / "watchdog"}, 0, "rank 0 on n1").write_end(8);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

}  // namespace
}  // namespace red::parallel

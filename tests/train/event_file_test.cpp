// Event files byte by byte where they can be checked by hand, and through a second reader otherwise.
#include "train/event_file.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "support/event_reader.hpp"
#include "support/temporary_folder.hpp"
#include "train/step_metrics.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;
using test::read_event_file;
using test::ReadEvent;
using test::step_metrics;

std::string bytes(std::initializer_list<int> values) {
  std::string result;
  for (const int value : values) result.push_back(static_cast<char>(value));
  return result;
}

// 1.0 is 0x3FF0000000000000. Keys: 1 fp64 09, 2 varint 10, 3 text 1A, 5 message 2A, 7 message 3A.
TEST(EventFileTest, EncodesAsByHand) {
  const std::string one = bytes({0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F});
  EXPECT_EQ(version_event(1.0), one + bytes({0x1A, 13}) + "brain.Event:2");
  EXPECT_EQ(restart_event(1.0, 300), one + bytes({0x10, 0xAC, 0x02, 0x3A, 2, 0x08, 1}));
  const std::vector<ScalarPoint> points = {{"a", 1.0F}, {"bc", -2.0F}};
  EXPECT_EQ(scalar_event(1.0, 5, points),
            one + bytes({0x10, 5, 0x2A, 21}) +                              //
                bytes({0x0A, 8, 0x0A, 1, 'a', 0x15, 0, 0, 0x80, 0x3F}) +    // 1.0F is 0x3F800000
                bytes({0x0A, 9, 0x0A, 2, 'b', 'c', 0x15, 0, 0, 0, 0xC0}));  // -2.0F is 0xC0000000
}

// Every event file begins so: 24 bytes of version.
TEST(EventFileTest, FramesAsOthersDo) {
  EXPECT_EQ(event_record(version_event(1.0)).substr(0, 12),
            bytes({0x18, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22}));
  for (const std::size_t size : {0, 1, 23, 1000}) {
    const std::string event(size, '\xA5');
    EXPECT_EQ(test::read_event_records(event_record(event) + event_record("x")),
              (std::vector<std::string>{event, "x"}));
  }
}

TEST(EventFileTest, TheReaderOfThisTestSeesDamage) {
  const std::string good = event_record("some event");
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    EXPECT_THROW(test::read_event_records(bad), std::runtime_error) << "byte " << i;
  }
  EXPECT_THROW(test::read_event_records(good.substr(0, good.size() - 1)), std::runtime_error);
}

TEST(EventFileTest, AStepComesBack) {
  const test::TemporaryFolder folder;
  StepMetrics metrics = step_metrics(int64_t{1} << 40);
  metrics.validation = {{"wiki", 12, 384, 2.5, 2.25}};
  metrics.result.gradient_norm = std::nan("");
  {
    EventFile file(folder.path(), 0);
    file.write(metrics);
  }
  const std::vector<fs::path> files = test::event_files(folder.path());
  ASSERT_EQ(files.size(), 1U);
  const std::vector<ReadEvent> events = read_event_file(files.front());
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_EQ(events[1].session_status, 1);
  EXPECT_EQ(events[1].step, 1);
  EXPECT_EQ(events[2].step, int64_t{1} << 40);
  EXPECT_EQ(events[2].wall_time, metrics.wall_time);
  for (const auto& [tag, value] : scalar_points(metrics)) {
    ASSERT_EQ(events[2].values.count(tag), 1U) << tag;
    EXPECT_TRUE(std::isnan(value) || events[2].values.at(tag) == value) << tag;
  }
  EXPECT_EQ(events[2].values.at("validation/wiki/loss"), 2.5F);
  EXPECT_TRUE(std::isnan(events[2].values.at("train/gradient_norm")));
}

TEST(EventFileTest, AResumeCallsOffLaterStepsWhateverTheClockSays) {
  const test::TemporaryFolder folder;
  const auto run = [&](int64_t last_step, int64_t end) {
    EventFile file(folder.path(), last_step);
    for (int64_t step = last_step + 1; step <= end; ++step) file.write(step_metrics(step));
  };
  run(0, 8);
  // Of an hour that is still to come.
  const fs::path first = test::event_files(folder.path()).front();
  fs::rename(first, folder.path() / "events.out.tfevents.9000000000.elsewhere.1");
  run(5, 9);
  run(5, 7);
  run(7, 10);
  const auto curves = test::curves_of(folder.path());
  EXPECT_EQ(test::event_files(folder.path()).size(), 4U);
  EXPECT_EQ(curves.size(), scalar_points(step_metrics(1)).size());
  for (const auto& [tag, points] : curves) {
    ASSERT_EQ(points.size(), 10U) << tag;
    for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(points[i].first, i + 1) << tag;
  }
}

TEST(EventFileTest, AFolderThatIsNotThereIsNamed) {
  EXPECT_THROW(EventFile("/nowhere/at/all", 0), IoError);
}

}  // namespace
}  // namespace red::train

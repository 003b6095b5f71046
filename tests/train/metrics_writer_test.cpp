// Nobody who hands in metrics waits for a disk: not for one that stands still, not for one that fails.
#include "train/metrics_writer.hpp"

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>

#include "train/step_metrics.hpp"

namespace red::train {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using test::step_metrics;

/// What the sinks of a test share with it; outlives a writer that was given up.
struct Disk {
  std::mutex mutex;
  std::condition_variable changed;
  bool answers = true, full = false;
  bool asked = false;  ///< a write has begun
  std::vector<int64_t> steps;

  void set(bool& flag, bool value) {
    const std::lock_guard lock(mutex);
    flag = value;
    changed.notify_all();
  }
  /// False after a long time.
  template <class Condition>
  bool wait_for(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(20), condition);
  }
  std::vector<int64_t> written() {
    const std::lock_guard lock(mutex);
    return steps;
  }
};

class DiskSink final : public MetricsSink {
 public:
  explicit DiskSink(std::shared_ptr<Disk> disk) : disk_(std::move(disk)) {}
  std::string name() const override { return "disk"; }
  void write(const StepMetrics& metrics) override {
    std::unique_lock lock(disk_->mutex);
    disk_->asked = true;
    disk_->changed.notify_all();
    disk_->changed.wait(lock, [&] { return disk_->answers; });
    if (disk_->full) throw IoError("disk: cannot write: full");
    disk_->steps.push_back(metrics.step);
    disk_->changed.notify_all();
  }

 private:
  std::shared_ptr<Disk> disk_;
};

class MetricsWriterTest : public testing::Test {
 protected:
  static std::shared_ptr<Disk> disk() { return std::make_shared<Disk>(); }
  static std::unique_ptr<MetricsWriter> writer(const std::vector<std::shared_ptr<Disk>>& disks,
                                               const MetricsWriterOptions& options = {}) {
    std::vector<std::unique_ptr<MetricsSink>> sinks;
    for (const auto& d : disks) sinks.push_back(std::make_unique<DiskSink>(d));
    return std::make_unique<MetricsWriter>(std::move(sinks), options);
  }
  static std::vector<int64_t> first(int64_t count) {
    std::vector<int64_t> steps(count);
    for (int64_t i = 0; i < count; ++i) steps[i] = i + 1;
    return steps;
  }
};

TEST_F(MetricsWriterTest, EverythingIsThereAtTheEndInOrder) {
  const auto one = disk(), two = disk();
  auto metrics = writer({one, two});
  for (int64_t step = 1; step <= 500; ++step) metrics->push(step_metrics(step));
  metrics.reset();
  EXPECT_EQ(one->written(), first(500));
  EXPECT_EQ(two->written(), first(500));
}

TEST_F(MetricsWriterTest, ADiskThatStandsStillCostsNoStepAndOnlyWhatFindsNoRoom) {
  const auto slow = disk();
  slow->answers = false;
  auto metrics = writer({slow}, {8, std::chrono::seconds(20)});
  metrics->push(step_metrics(1));
  EXPECT_TRUE(slow->wait_for([&] { return slow->asked; }));
  testing::internal::CaptureStderr();
  const auto begin = Clock::now();
  for (int64_t step = 2; step <= 100; ++step) metrics->push(step_metrics(step));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));  // the disk would take for ever
  EXPECT_EQ(metrics->num_dropped(), 91);
  slow->set(slow->answers, true);
  EXPECT_TRUE(slow->wait_for([&] { return slow->steps.size() == 9; }));
  metrics->push(step_metrics(101));
  metrics.reset();
  std::vector<int64_t> expected = first(9);
  expected.push_back(101);
  EXPECT_EQ(slow->written(), expected);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("8 records wait for a disk; those from step 10 on are dropped"), std::string::npos)
      << said;
  EXPECT_NE(said.find("91 record(s) were dropped"), std::string::npos) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 2) << said;
}

TEST_F(MetricsWriterTest, AFailureIsSaidOnceAndTheOtherSinkGoesOn) {
  const auto good = disk(), bad = disk();
  auto metrics = writer({bad, good});
  testing::internal::CaptureStderr();
  bad->set(bad->full, true);
  for (int64_t step = 1; step <= 20; ++step) metrics->push(step_metrics(step));
  EXPECT_TRUE(good->wait_for([&] { return good->steps.size() == 20; }));
  bad->set(bad->full, false);
  metrics->push(step_metrics(21));
  metrics.reset();
  EXPECT_EQ(bad->written(), std::vector<int64_t>{21});
  EXPECT_EQ(good->written(), first(21));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("metrics of step 1 are lost: disk: cannot write: full"), std::string::npos) << said;
  EXPECT_NE(said.find("disk: written again from step 21 on; 20 record(s) before it are lost"),
            std::string::npos)
      << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 2) << said;
}

TEST_F(MetricsWriterTest, WhatCouldNotBeWrittenToTheEndIsSaid) {
  const auto bad = disk();
  bad->full = true;
  testing::internal::CaptureStderr();
  auto metrics = writer({bad});
  for (int64_t step = 1; step <= 3; ++step) metrics->push(step_metrics(step));
  metrics.reset();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("disk: the last 3 record(s) could not be written"), std::string::npos) << said;
}

TEST_F(MetricsWriterTest, TheEndDoesNotWaitForEverEither) {
  const auto dead = disk();
  dead->answers = false;
  testing::internal::CaptureStderr();
  auto metrics = writer({dead}, {8, milliseconds(50)});
  for (int64_t step = 1; step <= 3; ++step) metrics->push(step_metrics(step));
  EXPECT_TRUE(dead->wait_for([&] { return dead->asked; }));
  const auto begin = Clock::now();
  metrics.reset();
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(5));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("a disk does not answer; 3 record(s) are given up"), std::string::npos) << said;
  // The thread that was left behind ends when the disk does answer; it holds on to what it needs.
  dead->set(dead->answers, true);
  EXPECT_TRUE(dead->wait_for([&] { return dead->steps.size() == 1; }));
}

}  // namespace
}  // namespace red::train

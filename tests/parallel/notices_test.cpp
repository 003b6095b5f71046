// Notices between real ranks: each reaches all of them while no rank is in MPI, says what it is about, and
// ends nothing.
#include "parallel/notices.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel/mpi_environment.hpp"

namespace red::parallel {
namespace {

class NoticesTest : public testing::Test {
 protected:
  NoticesTest() {
    board().listen([this](const Notice& notice) {
      const std::lock_guard lock(mutex_);
      heard_.push_back(notice);
      changed_.notify_all();
    });
    barrier();
  }
  ~NoticesTest() override {
    board().listen({});
    barrier();
    EXPECT_FALSE(mpi_.channel().failed());
  }

  NoticeBoard& board() { return mpi_.channel(); }
  void barrier() {
    Request request = mpi_.world().barrier();
    mpi_.world().wait(request, "test barrier");
  }
  /// Outside of MPI.
  std::vector<Notice> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [&] { return heard_.size() >= count; }));
    return heard_;
  }

  MpiEnvironment mpi_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Notice> heard_;
};

TEST_F(NoticesTest, ReachAllRanksFromAnyThreadOfAnyRank) {
  for (int speaker = 0; speaker < mpi_.size(); ++speaker) {
    if (mpi_.rank() == speaker)
      std::thread([&] { board().post(speaker + 7, "disk " + std::to_string(speaker)); }).join();
    const std::vector<Notice> heard = wait_for(static_cast<std::size_t>(speaker) + 1);
    EXPECT_EQ(heard.size(), static_cast<std::size_t>(speaker) + 1);
    const Notice last = heard.empty() ? Notice{} : heard.back();
    EXPECT_EQ(last.rank, speaker);
    EXPECT_EQ(last.subject, speaker + 7);
    EXPECT_EQ(last.text, "disk " + std::to_string(speaker));
    barrier();
  }
}

TEST_F(NoticesTest, FromAllRanksAtOnceAndLongOnes) {
  board().post(1, std::string(3 * kMaxText, 'x'));
  for (const Notice& notice : wait_for(static_cast<std::size_t>(mpi_.size()))) {
    EXPECT_GE(notice.text.size(), kMaxText);
    EXPECT_EQ(notice.text.find_first_not_of('x'), std::string::npos);
  }
}

TEST_F(NoticesTest, SubjectsAreNewAndTheSameEverywhere) {
  const int32_t first = board().new_subject(), second = board().new_subject();
  EXPECT_LT(first, second);
  if (mpi_.rank() == 0) board().post(second, "");
  for (const Notice& notice : wait_for(1)) EXPECT_EQ(notice.subject, second);
}

TEST_F(NoticesTest, NobodyNeedListen) {
  board().listen({});
  board().post(1, "to nobody");
  barrier();
}

}  // namespace
}  // namespace red::parallel

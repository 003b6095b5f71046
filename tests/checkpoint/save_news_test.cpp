// That a save behind training fails: heard of on all ranks before they agree on it at a boundary, told once,
// and nobody goes on writing.
#include "checkpoint/save_news.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "checkpoint/file_size_limit.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/saver_test.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

using SaveNewsTest = SaverTest;

/// Passes notices on, and lets the test see them and make them up.
class WatchedBoard final : public parallel::NoticeBoard {
 public:
  explicit WatchedBoard(parallel::NoticeBoard& board) : board_(board) {}
  int32_t new_subject() override { return last_subject_ = board_.new_subject(); }
  void post(int32_t subject, const std::string& text) override { board_.post(subject, text); }
  void listen(std::function<void(const parallel::Notice&)> listener) override {
    if (!listener) board_.listen({});  // before the one that it calls is gone
    listener_ = std::move(listener);
    if (!listener_) return;
    board_.listen([this](const parallel::Notice& notice) {
      listener_(notice);
      const std::lock_guard lock(mutex_);
      heard_.push_back(notice);
      changed_.notify_all();
    });
  }

  int32_t last_subject() const { return last_subject_; }
  void make_up(int32_t subject) const { listener_({0, subject, "made up"}); }
  /// The first that comes in the time.
  std::optional<parallel::Notice> first(std::chrono::seconds patience) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [this] { return !heard_.empty(); });
    return heard_.empty() ? std::nullopt : std::optional(heard_.front());
  }

 private:
  parallel::NoticeBoard& board_;
  std::function<void(const parallel::Notice&)> listener_;
  int32_t last_subject_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<parallel::Notice> heard_;
};

/// What this process says meanwhile, through a pipe: files may have a limit.
class CapturedStderr {
 public:
  CapturedStderr() : before_(::dup(STDERR_FILENO)) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe(ends), 0);
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[1]);
    end_ = ends[0];
  }
  ~CapturedStderr() { text(); }
  CapturedStderr(const CapturedStderr&) = delete;
  CapturedStderr& operator=(const CapturedStderr&) = delete;

  /// Ends it.
  const std::string& text() {
    if (end_ < 0) return text_;
    ::dup2(before_, STDERR_FILENO);
    ::close(before_);
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(end_, buffer, sizeof(buffer))) > 0;)
      text_.append(buffer, static_cast<std::size_t>(got));
    ::close(std::exchange(end_, -1));
    return text_;
  }

 private:
  int before_;
  int end_ = -1;
  std::string text_;
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t number = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++number;
  return number;
}

constexpr const char* kAtOnce = "the save of step 2 fails, training goes on";

TEST_F(SaveNewsTest, AFailureIsHeardOfWithoutABoundary) {
  if (rank() == 0) std::ofstream(folder() / "file") << "no folder";
  barrier();
  Source from = source(1);
  WatchedBoard board(notices());
  BackgroundSaver saver(folder() / "file/checkpoints", {}, world(), &board);
  begin(saver, 1, from);
  const auto notice = board.first(std::chrono::seconds(20));
  EXPECT_TRUE(notice);
  if (notice) {
    EXPECT_EQ(notice->rank, 0);
    EXPECT_TRUE(
        has(notice->text, "the save of step 1 fails, training goes on, and the checkpoint before is"));
    EXPECT_TRUE(has(notice->text, "checkpoint: preparing the folder: rank 0 on "));
    EXPECT_TRUE(has(notice->text, "errno 20"));
  }
  EXPECT_FALSE(saver.idle() || saver.take_result());
  EXPECT_TRUE(has(result_after_steps(saver).error, "errno 20"));
  saver.finish();
}

TEST_F(SaveNewsTest, AWriteThatFailsIsToldOnceBeforeTheRanksAgreeOnIt) {
  Source from = source(1);
  WatchedBoard board(notices());
  BackgroundSaver saver(folder(), {}, world(), &board);
  CapturedStderr log;
  SaveResult result;
  {
    std::optional<FileSizeLimit> full;
    if (rank() == last()) full.emplace(0);
    begin(saver, 2, from);
    while (!fs::exists(folder() / "step-00000002.partial"))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // it is on the disk too
    saver.at_step_boundary();
    for (bool heard = false; !heard && !saver.idle();) {  // until the boundary at which they write
      saver.at_step_boundary();
      heard = on_all_ranks(board.first(std::chrono::seconds(3)).has_value());
    }
    EXPECT_FALSE(saver.idle() || saver.take_result());
    const auto notice = board.first(std::chrono::seconds(0));
    EXPECT_TRUE(notice);
    if (notice) {
      EXPECT_EQ(notice->rank, last());
      EXPECT_TRUE(has(notice->text, fmt::format("checkpoint: writing a shard: rank {} on ", last())));
      EXPECT_TRUE(has(notice->text, "step-00000002.partial/" + shard_file_name(last())));
      EXPECT_TRUE(has(notice->text, "(errno 27)"));
    }
    board.post(board.last_subject(), kAtOnce);  // as others would that fail too
    result = result_after_steps(saver);
  }
  EXPECT_TRUE(has(result.error, "(errno 27)"));
  EXPECT_FALSE(has(result.error, "more of"));
  saver.finish();
  if (rank() == 0) {
    EXPECT_EQ(count(log.text(), kAtOnce), 1U);
  }
  barrier();
  EXPECT_TRUE(names_in(folder()).empty());
}

TEST_F(SaveNewsTest, WhoHearsOfAFailureStopsWritingAndIsNotTheReason) {
  Source from = source(1);
  WatchedBoard board(notices());
  BackgroundSaver saver(folder(), {}, world(), &board);
  begin(saver, 1, from);
  saver.finish();
  EXPECT_EQ(saver.take_result()->error, "");
  const uintmax_t whole = fs::file_size(folder() / "step-00000001" / shard_file_name(rank()));
  const fs::path mine = folder() / "step-00000002.partial" / shard_file_name(rank());
  uintmax_t largest = 0;
  SaveResult result;
  {
    std::optional<FileSizeLimit> full;
    if (rank() == last()) full.emplace(100);
    begin(saver, 2, from);
    if (rank() != last()) board.make_up(board.last_subject());
    result = result_after_steps(saver, [&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      std::error_code not_there;
      const uintmax_t size = fs::file_size(mine, not_there);
      if (!not_there) largest = std::max(largest, size);
    });
  }
  EXPECT_LT(largest, whole);
  EXPECT_TRUE(has(result.error, fmt::format("checkpoint: writing a shard: rank {} on ", last())));
  EXPECT_FALSE(has(result.error, "more of"));
  saver.finish();
  // Late news of that save are none of the next one, of the same step or not.
  const int32_t old = board.last_subject();
  for (const int64_t step : {2, 3}) {
    begin(saver, step, from);
    board.make_up(old);
    result = result_after_steps(saver, [&] { board.make_up(old); });
    EXPECT_EQ(result.error, "");
    EXPECT_EQ(count_wrong(folder() / folder_name(step), 1), 0);
  }
}

TEST_F(SaveNewsTest, ThatAllRanksFailIsToldOnce) {
  Source from = source(1);
  BackgroundSaver saver(folder(), {}, world(), &notices());
  CapturedStderr log;
  SaveResult result;
  {
    const FileSizeLimit full(100);
    begin(saver, 2, from);
    result = result_after_steps(saver);
  }
  // Of whichever came to it before it heard of another.
  EXPECT_TRUE(has(result.error, "(errno 27)"));
  saver.finish();
  if (rank() == 0) {
    EXPECT_LE(count(log.text(), kAtOnce), 1U);
  }
}

}  // namespace
}  // namespace red::checkpoint::test

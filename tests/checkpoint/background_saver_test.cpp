// Saves behind training: the bytes of save(), of the moment of begin() whatever happens afterwards; failures
// of one rank that all know of the same way and that leave nothing behind; and savers that are given up.
#include "checkpoint/background_saver.hpp"

#include <gtest/gtest.h>

#include <system_error>

#include "checkpoint/file_size_limit.hpp"
#include "checkpoint/folders.hpp"
#include "checkpoint/saver_test.hpp"
#include "checkpoint/verify.hpp"

namespace red::checkpoint::test {
namespace {

namespace fs = std::filesystem;

using BackgroundSaverTest = SaverTest;

/// Has sums done when the call returns, and gives back no request.
class SumsAtOnce final : public parallel::Communicator {
 public:
  explicit SumsAtOnce(parallel::Communicator& inner) : inner_(inner) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  std::string_view name() const override { return inner_.name(); }
  parallel::Request all_reduce(const Tensor& x, parallel::ReduceOp op) override {
    parallel::Request request = inner_.all_reduce(x, op);
    inner_.wait(request, "test");
    return {};
  }
  parallel::Request reduce_scatter(const Tensor& receive, const Tensor& send) override {
    return inner_.reduce_scatter(receive, send);
  }
  parallel::Request all_gather(const Tensor& receive, const Tensor& send) override {
    return inner_.all_gather(receive, send);
  }
  parallel::Request broadcast(const Tensor& x, int root) override { return inner_.broadcast(x, root); }
  parallel::Request send(const Tensor& x, int to, int tag) override { return inner_.send(x, to, tag); }
  parallel::Request receive(const Tensor& x, int from, int tag) override {
    return inner_.receive(x, from, tag);
  }
  parallel::Request barrier() override { return inner_.barrier(); }
  void wait(parallel::Request& request, std::string_view what) override { inner_.wait(request, what); }
  bool test(parallel::Request& request) override { return inner_.test(request); }
  void poll() noexcept override { inner_.poll(); }
  std::unique_ptr<parallel::Communicator> split(int color, int key, std::string_view name) override {
    return inner_.split(color, key, name);
  }
  double wait_seconds() const override { return inner_.wait_seconds(); }

 private:
  parallel::Communicator& inner_;
};

TEST_F(BackgroundSaverTest, WritesTheBytesOfTheMomentAndOfSave) {
  Source from = source(1);
  save(folder() / "at_once", metadata_of(3), from.owned.shards(), world());
  BackgroundSaver saver(folder() / "behind", {}, world());
  EXPECT_TRUE(saver.idle());
  begin(saver, 3, from);
  EXPECT_FALSE(saver.idle());
  from.owned.fill(2);  // training goes on
  const SaveResult result = result_after_steps(saver);
  EXPECT_EQ(result.error, "");
  EXPECT_EQ(result.step, 3);
  EXPECT_TRUE(saver.idle());
  const fs::path behind = folder() / "behind/step-00000003", at_once = folder() / "at_once/step-00000003";
  EXPECT_EQ(names_in(behind), names_in(at_once));
  for (const std::string& name : names_in(at_once))
    EXPECT_TRUE(text_of(behind / name) == text_of(at_once / name)) << name;
  EXPECT_EQ(find_damage(behind), std::vector<std::string>());
  EXPECT_EQ(count_wrong(behind, 1), 0);
  EXPECT_EQ(find_latest(folder() / "behind"), behind);
}

TEST_F(BackgroundSaverTest, SavesOneAfterAnother) {
  Source from = source(1);
  BackgroundSaver saver(folder(), {}, world());
  for (int step = 1; step <= 4; ++step) {
    from.owned.fill(step);
    begin(saver, step, from);
    if (step % 2 == 0) saver.at_step_boundary();  // whatever is under way then
    saver.finish();
    const auto result = saver.take_result();
    EXPECT_TRUE(result && result->error.empty());
    EXPECT_FALSE(saver.take_result());
    EXPECT_EQ(count_wrong(folder() / folder_name(step), step), 0);
  }
}

// A sum that leaves no request to wait for says how far all ranks are, as any other does.
TEST_F(BackgroundSaverTest, GoesOnWhereSumsAreDoneAtTheCall) {
  Source from = source(1);
  SumsAtOnce ranks(world());
  BackgroundSaver saver(folder(), {}, ranks);
  begin(saver, 1, from);
  SaveResult result{0, 0.0, "it never ends"};
  for (int boundary = 0; boundary < 2000 && result.step == 0; ++boundary) {
    saver.at_step_boundary();
    if (auto news = saver.take_result()) result = *news;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(result.error, "");
  saver.finish();
  EXPECT_EQ(count_wrong(folder() / folder_name(1), 1), 0);
}

TEST_F(BackgroundSaverTest, OneRankOutOfSpaceIsEverybodysResult) {
  Source from = source(1);
  BackgroundSaver saver(folder(), {}, world());
  begin(saver, 1, from);
  EXPECT_EQ(result_after_steps(saver).error, "");
  for (const rlim_t limit : {8000, 100, 0}) {
    SCOPED_TRACE(limit);
    from.owned.fill(2);
    SaveResult result;
    {
      std::optional<FileSizeLimit> full;
      if (rank() == last()) full.emplace(limit);
      begin(saver, 2, from);
      result = result_after_steps(saver);
    }
    EXPECT_TRUE(has(result.error, fmt::format("rank {} on ", last())));
    EXPECT_TRUE(has(result.error, "step-00000002.partial/" + shard_file_name(last())));
    EXPECT_TRUE(has(result.error, "(errno 27)"));
    EXPECT_EQ(result.error, text_of_rank_0(result.error));
    saver.finish();
    EXPECT_FALSE(saver.take_result());
    EXPECT_EQ(names_in(folder()), (std::set<std::string>{"latest", "step-00000001"}));
    EXPECT_EQ(count_wrong(folder() / "step-00000001", 1), 0);
    barrier();
  }
  begin(saver, 2, from);
  saver.finish();
  EXPECT_EQ(saver.take_result()->error, "");
  EXPECT_EQ(count_wrong(folder() / "step-00000002", 2), 0);
}

TEST_F(BackgroundSaverTest, APublicationThatFailsIsRankZeros) {
  Source from = source(1);
  BackgroundSaver saver(folder(), {}, world());
  begin(saver, 1, from);
  // Shards are written between two boundaries; publishing begins behind them, with the index.
  const fs::path partial = folder() / "step-00000001.partial";
  const SaveResult result = result_after_steps(saver, [&] {
    std::error_code there_already;
    if (rank() == 0 && fs::exists(partial)) fs::create_directory(partial / "index.h5", there_already);
  });
  EXPECT_TRUE(has(result.error, "checkpoint: publishing: rank 0 on "));
  EXPECT_TRUE(has(result.error, "step-00000001.partial/index.h5"));
  EXPECT_EQ(result.error, text_of_rank_0(result.error));
  saver.finish();
  barrier();
  EXPECT_TRUE(names_in(folder()).empty());
}

TEST_F(BackgroundSaverTest, AFolderThatCannotBeIsAResult) {
  if (rank() == 0) std::ofstream(folder() / "file") << "no folder";
  barrier();
  Source from = source(1);
  BackgroundSaver saver(folder() / "file/checkpoints", {}, world());
  begin(saver, 1, from);
  const SaveResult result = result_after_steps(saver);
  EXPECT_TRUE(has(result.error, "checkpoint: preparing the folder: rank 0 on "));
  EXPECT_TRUE(has(result.error, "errno 20"));
  EXPECT_EQ(result.error, text_of_rank_0(result.error));
  saver.finish();
}

TEST_F(BackgroundSaverTest, ASaverThatIsGivenUpLeavesAnUnfinishedSave) {
  {
    Source from = source(1);
    BackgroundSaver saver(folder(), {}, world());
    begin(saver, 1, from);
    while (!fs::exists(folder() / "step-00000001.partial"))
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  barrier();
  EXPECT_EQ(names_in(folder()), (std::set<std::string>{"step-00000001.partial"}));
  EXPECT_EQ(find_latest(folder()), std::nullopt);
}

}  // namespace
}  // namespace red::checkpoint::test

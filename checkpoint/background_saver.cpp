#include "checkpoint/background_saver.hpp"

#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "checkpoint/folders.hpp"
#include "parallel/star.hpp"

namespace red::checkpoint {
namespace {

constexpr std::chrono::milliseconds kLook(
    20);  ///< between looks at the threads where there is nothing else to do
constexpr std::chrono::seconds kReminder(60);

/// Thrown out of a job that is not wanted any more.
struct Cancelled {};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

struct BackgroundSaver::Work {
  Metadata metadata;
  ShardCopy copy;
  AllTiles tiles;                    ///< rank 0
  ShardRecord record;                ///< of this rank, when it has written
  std::vector<ShardRecord> records;  ///< of all ranks, on rank 0
};

BackgroundSaver::BackgroundSaver(std::filesystem::path checkpoints_dir, const Retention& retention,
                                 parallel::Communicator& world, parallel::NoticeBoard* notices)
    : checkpoints_dir_(std::move(checkpoints_dir)),
      retention_(retention),
      world_(world),
      news_(SaveNews::listen(notices)) {}

BackgroundSaver::~BackgroundSaver() {
  news_->give_up(save_);
  news_->leave();
}

const char* BackgroundSaver::stage_name() const {
  return stage_ == Stage::preparing ? "checkpoint: preparing the folder"
         : stage_ == Stage::writing ? "checkpoint: writing a shard"
                                    : "checkpoint: publishing";
}

/// A job of the stage, whose failure everybody hears of before this thread is idle. One that was stopped has
/// not failed: the rank that did is the reason, and will say so at the boundary.
void BackgroundSaver::start(std::function<void()> job) {
  thread_.start(
      [news = news_, save = save_, job = std::move(job),
       where = fmt::format("the save of step {} fails, training goes on, and the checkpoint before is "
                           "untouched: {}: rank {} on {}",
                           step_, stage_name(), world_.rank(), parallel::host_name())] {
        try {
          job();
        } catch (const Cancelled&) {
        } catch (const LogicError&) {
          throw;  // ends the run
        } catch (const std::exception& error) {
          news->tell(save, fmt::format("{}: {}", where, error.what()));
          throw;
        }
      });
}

void BackgroundSaver::begin(const Metadata& metadata, ShardCopy copy) {
  RED_CHECK(idle() && !result_, "the save of step {} is still under way", step_);
  step_ = metadata.step;
  save_ = news_->new_save();
  begun_ = std::chrono::steady_clock::now();
  work_ = std::make_shared<Work>();
  work_->metadata = metadata;
  work_->tiles = gather_tiles(world_, metadata, copy.shards);
  work_->copy = std::move(copy);
  stage_ = Stage::preparing;
  // A job of nothing elsewhere, here and below, so that no rank's old error stays.
  start([dir = checkpoints_dir_, step = step_, first = world_.rank() == 0] {
    if (first) prepare_partial(dir, step);
  });
}

void BackgroundSaver::begin_writing() {
  stage_ = Stage::writing;
  const Metadata& metadata = work_->metadata;
  const ShardIdentity identity{metadata.step, metadata.sample_cursor, world_.rank(), world_.size()};
  start([work = work_, news = news_, save = save_, identity,
         partial = partial_folder(checkpoints_dir_, step_),
         options = WriteOptions{{}, retention_.deletes()}] {
    const auto stop_if_unwanted = [&] {
      if (news->given_up(save)) throw Cancelled();
    };
    work->record = write_own_shard(partial, identity, work->copy.shards, stop_if_unwanted, options);
  });
}

void BackgroundSaver::at_step_boundary() {
  if (idle()) return;
  if (asked_) conclude();
  if (idle()) return;
  ask();
}

void BackgroundSaver::finish() {
  auto reminder = std::chrono::steady_clock::now() + kReminder;
  while (!idle()) {
    if (!asked_) ask();
    conclude();
    if (idle()) return;
    thread_.wait_for(kLook);
    if (std::chrono::steady_clock::now() < reminder) continue;
    log::info("still waiting for the checkpoint of step {}, for {:.0f} s now", step_, seconds_since(begun_));
    reminder += kReminder;
  }
}

std::optional<SaveResult> BackgroundSaver::take_result() {
  return std::exchange(result_, std::nullopt);
}

/// Begins to add up how far all ranks are.
void BackgroundSaver::ask() {
  const bool busy = thread_.busy();
  state_[0] = !busy && thread_.error() ? 1.0F : 0.0F;
  state_[1] = busy ? 1.0F : 0.0F;
  request_ = world_.all_reduce(make_tensor(state_, 2, 1), parallel::ReduceOp::max);
  asked_ = true;
}

/// All ranks have the same state_ behind the wait, and so do the same.
void BackgroundSaver::conclude() {
  world_.wait(request_, "how far the checkpoint is");
  asked_ = false;
  const bool failed = state_[0] > 0.0F, unfinished = state_[1] > 0.0F;
  switch (stage_) {
    case Stage::idle:
      break;
    case Stage::preparing:
      if (failed) return fail();
      if (!unfinished) begin_writing();
      break;
    case Stage::writing:
      if (failed) return fail();
      if (!unfinished) begin_publishing();
      break;
    case Stage::publishing:
      if (failed) return fail();
      if (!unfinished) end({});
      break;
    case Stage::stopping:
      if (unfinished) break;
      stage_ = Stage::clearing;
      thread_.start([dir = checkpoints_dir_, step = step_, first = world_.rank() == 0] {
        if (first) remove_partial(dir, step);
      });
      break;
    case Stage::clearing:
      if (!unfinished) stage_ = Stage::idle;
      break;
  }
}

/// The text is exchanged at once: all ranks are here. Threads that still write are told to stop.
void BackgroundSaver::fail() {
  const char* what = stage_name();
  const std::exception_ptr mine = thread_.error();
  news_->give_up(save_);
  try {
    run_agreed(world_, what, [&mine] {
      if (mine) std::rethrow_exception(mine);
    });
    throw LogicError("{}: a rank failed, and none says why", what);
  } catch (const IoError& error) {
    end(error.what());
  }
  stage_ = Stage::stopping;
}

void BackgroundSaver::begin_publishing() {
  stage_ = Stage::publishing;
  work_->records = gather_records(world_, work_->record);
  start([work = work_, dir = checkpoints_dir_, retention = retention_, first = world_.rank() == 0] {
    if (first) publish_all(dir, work->metadata, std::move(work->tiles), work->records, retention);
  });
}

void BackgroundSaver::end(std::string error) {
  result_ = SaveResult{step_, seconds_since(begun_), std::move(error)};
  work_.reset();
  stage_ = Stage::idle;
}

}  // namespace red::checkpoint

#include "train/run_checkpoints.hpp"

#include <chrono>
#include <utility>

#include "base/log.hpp"
#include "train/run_directory.hpp"

namespace red::train {
namespace {

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

RunCheckpoints::RunCheckpoints(const config::RunConfig& config, Engine& engine, Stream& stream,
                               parallel::Communicator& world, std::function<void()> before_log,
                               parallel::NoticeBoard* notices)
    : config_(config.checkpoint),
      engine_(engine),
      stream_(stream),
      world_(world),
      dir_(checkpoints_dir(config.train.run_dir)),
      retention_{config_.keep_last, config_.keep_every, config_.keep_best},
      before_log_(std::move(before_log)) {
  if (config_.async) saver_ = std::make_unique<checkpoint::BackgroundSaver>(dir_, retention_, world, notices);
}

void RunCheckpoints::save(const checkpoint::Metadata& metadata) {
  if (!saver_) return save_now(metadata);
  if (!saver_->idle()) wait_for_earlier(metadata.step);
  const auto begin = std::chrono::steady_clock::now();
  saver_->begin(metadata, engine_.copy_checkpoint_shards());
  stood_still_s_ = seconds_since(begin);
  take_result();
}

void RunCheckpoints::save_now(const checkpoint::Metadata& metadata) {
  const auto begin = std::chrono::steady_clock::now();
  checkpoint::SaveOptions options;
  options.retention = retention_;
  options.fetch = [this](void* host, const void* device, std::size_t num_bytes) {
    copy_to_host(stream_, host, device, num_bytes);
    stream_.synchronize();
  };
  checkpoint::SaveResult result{metadata.step, 0.0, {}};
  try {
    checkpoint::save(dir_, metadata, engine_.checkpoint_shards(), world_, options);
  } catch (const IoError& error) {
    result.error = error.what();
  }
  result.seconds = stood_still_s_ = seconds_since(begin);
  report(result);
  stop_after_failures();
}

void RunCheckpoints::wait_for_earlier(int64_t step) {
  before_log_();
  log::warning(
      "saving step {} has to wait: the save of step {} is not on the disk yet; a faster disk or a larger "
      "checkpoint.every ends that",
      step, saver_->step());
  const auto begin = std::chrono::steady_clock::now();
  saver_->finish();
  log::info("training stood still for {:.2f} s for that", seconds_since(begin));
  take_result();
}

void RunCheckpoints::at_step_boundary() {
  if (!saver_) return;
  saver_->at_step_boundary();
  take_result();
}

void RunCheckpoints::finish() {
  finish_before_failure();
  if (last_failure_.empty()) return;
  throw CheckpointError(
      "the last save of the run failed: {}; start the same command again when that is mended", last_failure_);
}

void RunCheckpoints::finish_before_failure() {
  if (!saver_) return;
  saver_->finish();
  if (const auto result = saver_->take_result()) report(*result);
}

void RunCheckpoints::take_result() {
  const auto result = saver_->take_result();
  if (!result) return;
  report(*result);
  stop_after_failures();
}

void RunCheckpoints::stop_after_failures() {
  if (failures_in_a_row_ < config_.max_failures) return;
  if (saver_) saver_->finish();  // what the failed save left is cleared away
  engine_.complete_weights();
  throw CheckpointError("{} saves in a row failed (checkpoint.max_failures = {}), the last: {}",
                        failures_in_a_row_, config_.max_failures, last_failure_);
}

void RunCheckpoints::report(const checkpoint::SaveResult& result) {
  before_log_();
  last_failure_ = result.error;
  if (result.error.empty()) {
    failures_in_a_row_ = 0;
    log::info("saved step {} in {:.2f} s, for {:.2f} s of which training stood still", result.step,
              result.seconds, stood_still_s_);
    return;
  }
  ++failures_in_a_row_;
  log::warning(
      "step {} could not be saved, failure {} of {} in a row (checkpoint.max_failures): {}; the checkpoint "
      "before "
      "is untouched",
      result.step, failures_in_a_row_, config_.max_failures, result.error);
}

}  // namespace red::train

#include "train/run_session.hpp"

#include <chrono>
#include <random>
#include <thread>
#include <utility>

#include "base/error.hpp"
#include "checkpoint/exchange.hpp"

namespace red::train {
namespace {

/// Unlike any other run's.
std::string new_id() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

}  // namespace

RunSession::RunSession(const std::filesystem::path& run_dir, const parallel::Layout& layout,
                       parallel::Communicator& world, const RunLockTiming& timing)
    : run_dir_(run_dir) {
  int32_t code = 0;
  std::string text;
  if (world.rank() == 0) {
    try {
      start(layout, world.size(), timing);
      text = start_.holder.id;
    } catch (const Error& error) {
      code = static_cast<int32_t>(error.code());
      text = error.what();
    }
  }
  parallel::Request request = world.broadcast(make_tensor(&code, 1, 1), 0);
  // No wait with a deadline: rank 0 may have to watch another's lock for a minute.
  while (!world.test(request)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  world.wait(request, "the lock of the run's folder");
  text = checkpoint::text_of_first_rank(world, text);
  if (code == static_cast<int32_t>(ExitCode::configuration)) throw ConfigError("{}", text);
  if (code != 0) throw IoError("{}", text);
  start_.holder.id = text;
}

void RunSession::start(const parallel::Layout& layout, int num_ranks, const RunLockTiming& timing) {
  std::error_code error;
  std::filesystem::create_directories(run_dir_, error);
  if (error) throw IoError("{}: cannot make the run's folder: {}", run_dir_.string(), error.message());
  start_.holder = own_holder(new_id());
  start_.time = seconds_since_1970();
  start_.num_ranks = num_ranks;
  start_.layout = layout.to_string();
  lock_ = std::make_unique<RunLock>(run_dir_, start_.holder.id, timing);
  log_start(run_dir_, start_);
}

void RunSession::training_begins(int64_t step, int64_t steps,
                                 const std::optional<std::filesystem::path>& checkpoint) {
  step_ = step;
  start_.from_step = step;
  start_.steps = steps;
  if (checkpoint) start_.checkpoint = checkpoint->string();
  if (!lock_) return;
  log_training(run_dir_, start_);
  mark_ = std::make_unique<StepMark>(run_dir_);
}

void RunSession::step_begins(int64_t step) noexcept {
  if (mark_) mark_->write(step);
}

void RunSession::returned(const RunReturn& r) noexcept {
  step_ = r.to_step;
  if (lock_) log_return(run_dir_, start_.holder.id, r);
}

void RunSession::step_done(int64_t step) {
  step_ = step;
  if (lock_) lock_->check();
}

void RunSession::end(int exit_code, std::string_view reason, bool speaks) noexcept {
  if (std::exchange(has_ended_, true)) return;
  if (speaks)
    log_end(run_dir_, start_.holder.id, {seconds_since_1970(), exit_code, std::string(reason), step_});
  if (lock_) lock_->release();
}

}  // namespace red::train

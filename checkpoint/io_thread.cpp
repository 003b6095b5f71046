#include "checkpoint/io_thread.hpp"

#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/check.hpp"
#include "base/log.hpp"
#include "base/watch.hpp"

namespace red::checkpoint {
namespace {

constexpr std::chrono::seconds kPatience(10);

}  // namespace

struct IoThread::State {
  mutable std::mutex mutex;
  mutable std::condition_variable changed;
  std::function<void()> job;
  std::exception_ptr error;
  bool busy = false, closing = false;

  void work() {
    const watch::Thread watched("checkpoint thread");
    std::unique_lock lock(mutex);
    for (;;) {
      changed.wait(lock, [this] { return busy || closing; });
      if (!busy) return;
      std::function<void()> mine = std::exchange(job, {});
      lock.unlock();
      std::exception_ptr thrown;
      try {
        mine();
      } catch (...) {
        thrown = std::current_exception();
      }
      mine = {};  // what it owns is free before anybody hears that it is done
      lock.lock();
      error = thrown;
      busy = false;
      changed.notify_all();
    }
  }
};

IoThread::IoThread() : state_(std::make_shared<State>()), thread_([state = state_] { state->work(); }) {}

IoThread::~IoThread() {
  std::unique_lock lock(state_->mutex);
  state_->closing = true;
  state_->changed.notify_all();
  const bool idle = state_->changed.wait_for(lock, kPatience, [this] { return !state_->busy; });
  lock.unlock();
  if (idle) {
    thread_.join();
    return;
  }
  log::rank_warning("a disk does not answer; a checkpoint that is being written is given up");
  thread_.detach();
}

void IoThread::start(std::function<void()> job) {
  const std::lock_guard lock(state_->mutex);
  RED_CHECK(!state_->busy, "the I/O thread has a job already");
  state_->job = std::move(job);
  state_->error = nullptr;
  state_->busy = true;
  state_->changed.notify_all();
}

bool IoThread::busy() const {
  const std::lock_guard lock(state_->mutex);
  return state_->busy;
}

void IoThread::wait_for(std::chrono::milliseconds patience) const {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait_for(lock, patience, [this] { return !state_->busy; });
}

std::exception_ptr IoThread::error() const {
  const std::lock_guard lock(state_->mutex);
  return state_->busy ? nullptr : state_->error;
}

}  // namespace red::checkpoint

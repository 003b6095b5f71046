#include "parallel/abort_channel.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/log.hpp"
#include "parallel/mpi_check.hpp"

namespace red::parallel {
namespace {

constexpr int kCommunication = static_cast<int>(ExitCode::communication);
constexpr int kWatchdog = static_cast<int>(ExitCode::watchdog);

int rank_in(MPI_Comm world) {
  int rank = 0;
  RED_MPI(MPI_Comm_rank(world, &rank));
  return rank;
}

}  // namespace

AbortChannel::AbortChannel(MPI_Comm world, const AbortOptions& options)
    : options_(options),
      rank_(rank_in(world)),
      host_(host_name()),
      watchdog_(options.watch, rank_, fmt::format("rank {} on {}", rank_, host_)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  RED_MPI(MPI_Comm_size(world, &size_));
  for (StarConnection& connection : connect_star(world, options.connect_s)) {
    Peer& peer = peers_.emplace_back();
    peer.state.rank = connection.rank;
    peer.state.host = connection.host;
    peer.connection = std::move(connection);
  }
  if (!peers_.empty() || watchdog_.watches()) start_thread();
}

/// Signals are for the main thread.
void AbortChannel::start_thread() {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void AbortChannel::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const auto bytes = write(wake_.get(), &one, sizeof one);
}

void AbortChannel::throw_failure() const {
  const std::lock_guard lock(mutex_);
  throw RemoteFailure(failure_.value());
}

Failure AbortChannel::abort(int exit_code, std::string_view text) {
  std::unique_lock lock(mutex_);
  Failure own{rank_, exit_code, rank_, std::string(text)};
  if (failure_) return *failure_;
  if (peers_.empty() || is_hub()) {
    decide(std::move(own));
    return *failure_;
  }
  const MessageHead head{SignalKind::wish, rank_, exit_code};
  send_message(peers_[0].connection.socket, head, text, kSendSeconds);
  return await_verdict(lock, options_.answer_s, std::move(own));
}

/// The run's first failure as rank 0 decides; when nothing comes, rank 0 is gone or stopped, and it is `own`.
Failure AbortChannel::await_verdict(std::unique_lock<std::mutex>& lock, double seconds, Failure own) {
  changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return failure_.has_value(); });
  if (!failure_) {
    cut_off_ = rank_0_is_elsewhere();
    decide(std::move(own));
  }
  return *failure_;
}

bool AbortChannel::cut_off() const {
  const std::lock_guard lock(mutex_);
  return cut_off_;
}

void AbortChannel::run() {
  std::vector<pollfd> entries;
  std::unique_lock lock(mutex_);
  for (;;) {
    write_report_if_due(lock);
    if (stop_) return;
    entries.clear();
    entries.push_back({wake_.get(), POLLIN, 0});
    for (const Peer& peer : peers_)
      entries.push_back({peer.connection.socket.get(), POLLIN, 0});  // poll skips -1
    const int timeout = timeout_ms();
    lock.unlock();
    poll(entries.data(), entries.size(), timeout);
    lock.lock();
    uint64_t count = 0;
    if (entries[0].revents != 0) [[maybe_unused]]
      const auto bytes = read(wake_.get(), &count, sizeof count);
    for (std::size_t i = 0; i < peers_.size(); ++i) {
      if (entries[i + 1].revents != 0 && !stop_) take_messages(peers_[i]);
    }
    finish_inquiry_if_due();
    look_at_own_threads();
    end_process_if_due();
  }
}

/// Until the next thing that is due without a message; -1: nothing is.
int AbortChannel::timeout_ms() const {
  std::optional<Clock::time_point> due;
  if (inquiry_) due = inquiry_->end;
  if (failure_) due = std::min(due.value_or(end_of_grace_), end_of_grace_);
  if (!failure_ && watchdog_.watches()) {
    const Clock::time_point next = Clock::now() + watchdog_.interval();
    due = std::min(due.value_or(next), next);
  }
  if (!due) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*due - Clock::now()).count();
  return static_cast<int>(std::max<int64_t>(left, 0));
}

void AbortChannel::take_messages(Peer& peer) {
  MessageHead head;
  std::string_view text;
  while (true) {
    switch (peer.connection.reader->next(peer.connection.socket, head, text)) {
      case MessageReader::Result::message:
        handle(peer, head, text);
        break;
      case MessageReader::Result::nothing:
        return;
      case MessageReader::Result::closed:
        return lost(peer);
    }
  }
}

void AbortChannel::handle(Peer& peer, const MessageHead& head, std::string_view text) {
  switch (head.kind) {
    case SignalKind::status:
    case SignalKind::answer:
      peer.state.waiting = head.code != 0;
      peer.state.seconds = head.seconds;
      take_news(peer.state, text);
      peer.state.answers = true;
      break;
    case SignalKind::question:
      send(peer, SignalKind::answer, own_news());
      break;
    case SignalKind::wish:
      decide({head.rank, head.code, head.rank, std::string(text)});
      break;
    case SignalKind::overdue:
      begin_inquiry(head.rank, head.speaker != 0, text);
      break;
    case SignalKind::verdict:
      decide({head.rank, head.code, head.speaker, std::string(text)});
      break;
    case SignalKind::told:
      if (is_hub()) {
        spread_told();
      } else {
        told_ = true;
        changed_.notify_all();
      }
      break;
    case SignalKind::ready:
      if (is_hub()) {
        peer.ready = true;
      } else {
        may_leave_ = true;
      }
      changed_.notify_all();
      break;
    case SignalKind::notice:
      if (!failure_) spread({head.rank, head.code, std::string(text)});
      break;
    case SignalKind::goodbye:
      peer.orderly = true;
      break;
    case SignalKind::hello:
    case SignalKind::welcome:
      break;
  }
}

void AbortChannel::lost(Peer& peer) {
  const int error = peer.connection.reader->error();
  const bool unreachable = error == ETIMEDOUT || error == EHOSTUNREACH || error == ENETUNREACH;
  peer.connection.socket.reset();
  changed_.notify_all();
  if (peer.orderly || failure_) return;
  const std::string what =
      unreachable ? fmt::format("cannot be reached any more ({}): its machine or the network is gone",
                                std::strerror(error))
                  : "died: its connection closed without a word";
  Failure failure{peer.connection.rank, kCommunication, is_hub() ? 0 : 1,
                  fmt::format("rank {} on {} {}", peer.connection.rank, peer.connection.host, what)};
  cut_off_ = unreachable && rank_0_is_elsewhere();
  // When rank 0 is dead, rank 1 speaks.
  decide_and_tell(std::move(failure));
}

/// Told at once: a launcher that saw it too may end this process any moment, and the main thread may be
/// stuck.
void AbortChannel::decide_and_tell(Failure failure) {
  if (failure_) return;
  const bool speaks = failure.speaker == rank_;
  if (speaks) log::rank_error("{}", failure.text);
  decide(std::move(failure));
  if (speaks) spread_told();
}

void AbortChannel::decide(Failure failure) {
  if (failure_) return;
  failure_ = std::move(failure);
  end_of_grace_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                     std::chrono::duration<double>(options_.grace_s));
  if (is_hub()) {
    const MessageHead head{SignalKind::verdict, failure_->rank, failure_->exit_code, failure_->speaker};
    for (Peer& peer : peers_) {
      if (peer.connection.socket) send_message(peer.connection.socket, head, failure_->text, kSendSeconds);
    }
  }
  // Before the main thread hears of it, and leaves where it is.
  if (failure_->exit_code == kWatchdog) watchdog_.take_stacks();
  report_due_ = true;
  failed_.store(true, std::memory_order_release);
  changed_.notify_all();
  wake();
}

void AbortChannel::write_report_if_due(std::unique_lock<std::mutex>& lock) {
  if (!std::exchange(report_due_, false)) return;
  const int code = failure_->exit_code;
  const bool writes_end = failure_->speaker == rank_ && (code == kWatchdog || code == kCommunication);
  const RankState own = own_state();
  const std::string wait =
      own.waiting ? fmt::format("waits for {} since {:.1f} s", own.what, own.seconds) : "waits for no rank";
  const std::string failure = failure_->text;
  lock.unlock();
  if (writes_end) watchdog_.write_end(code);
  if (code == kWatchdog) watchdog_.write_report(failure, wait);
  lock.lock();
}

/// For a rank that computes, or sits in a call that never returns: no wait of its main thread ends it.
void AbortChannel::end_process_if_due() {
  if (!failure_ || stop_ || Clock::now() < end_of_grace_) return;
  log::rank_error("still running {:.0f} s after rank {} failed; ended", options_.grace_s, failure_->rank);
  _exit(failure_->exit_code);
}

bool AbortChannel::is_told() const {
  const std::lock_guard lock(mutex_);
  return told_;
}

void AbortChannel::told() {
  const std::lock_guard lock(mutex_);
  spread_told();
}

void AbortChannel::spread_told() {
  if (std::exchange(told_, true)) return;
  for (Peer& peer : peers_) send(peer, SignalKind::told, "");
  changed_.notify_all();
}

void AbortChannel::linger(double seconds) {
  const auto end =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, end, [this] { return told_; });
  leave_together(lock, end);
  if (!is_hub()) return;
  changed_.wait_until(lock, end, [this] {
    return std::none_of(peers_.begin(), peers_.end(),
                        [](const Peer& p) { return static_cast<bool>(p.connection.socket); });
  });
}

/// Everybody tells rank 0 that it could leave; when all have, rank 0 tells them that all could.
void AbortChannel::leave_together(std::unique_lock<std::mutex>& lock, Clock::time_point end) {
  if (!is_hub() && !peers_.empty()) {
    send(peers_[0], SignalKind::ready, "");
    changed_.wait_until(lock, end, [this] { return may_leave_ || !peers_[0].connection.socket; });
    return;
  }
  changed_.wait_until(lock, end, [this] {
    return std::all_of(peers_.begin(), peers_.end(),
                       [](const Peer& p) { return p.ready || !p.connection.socket; });
  });
  for (Peer& peer : peers_) send(peer, SignalKind::ready, "");
}

void AbortChannel::close() noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (stop_) return;
    stop_ = true;
    for (Peer& peer : peers_) send(peer, SignalKind::goodbye, "");
    wake();
  }
  if (thread_.joinable()) thread_.join();
  peers_.clear();
}

}  // namespace red::parallel

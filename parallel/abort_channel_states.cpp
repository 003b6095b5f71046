// The half of the abort channel that knows who does what: waits, deadlines that passed, the question to all
// ranks and the report made of their answers.
#include <fmt/format.h>

#include <algorithm>

#include "parallel/abort_channel.hpp"

namespace red::parallel {
namespace {

constexpr int kWatchdog = static_cast<int>(ExitCode::watchdog);

// A loop that waits turns every few microseconds; a machine may be that busy.
constexpr double kTurnSeconds = 2;

}  // namespace

Failure AbortChannel::overdue(std::string_view text) {
  std::unique_lock lock(mutex_);
  if (failure_) return *failure_;
  asking_ = true;
  Failure own = appeal(text, false);
  const Failure verdict = await_verdict(lock, options_.answer_s + 1, std::move(own));
  // The side channel's thread writes its report at once, before anybody leaves.
  const bool alone = !is_hub() && verdict.speaker == rank_;
  if (alone) changed_.wait_for(lock, std::chrono::duration<double>(stagger_s()), [this] { return told_; });
  return verdict;
}

/// Has rank 0 ask everybody. Returns the failure that it is when rank 0 does not answer.
Failure AbortChannel::appeal(std::string_view text, bool names_rank) {
  Failure own{rank_, kWatchdog, rank_, std::string(text)};
  if (peers_.empty() || is_hub()) {
    begin_inquiry(rank_, names_rank, text);
    finish_inquiry_if_due();
  } else {
    own.text += fmt::format(
        "; rank 0 on {}, which hears from all ranks what they wait for, does not answer: it was stopped, or "
        "its machine "
        "or network is gone",
        peers_[0].state.host);
    send(peers_[0], SignalKind::overdue, text, names_rank ? 1 : 0);
  }
  return own;
}

/// Without rank 0 each rank is on its own. Rank 1 speaks and leaves first, so that where a launcher ends all
/// once one has left, only one message is seen.
double AbortChannel::stagger_s() const {
  return rank_ <= 1 ? 0 : 5;
}

/// Since when the waiting loop does not turn: MPI has not come back. 0: it turns, or there is no wait.
double AbortChannel::stuck_in_mpi_s() const {
  if (!own_.waiting || asking_ || turns_.load(std::memory_order_relaxed) != turns_seen_) return 0;
  const double seconds = std::chrono::duration<double>(Clock::now() - std::max(turned_, own_.since)).count();
  return seconds > kTurnSeconds ? seconds : 0;
}

/// Nobody waits here: a verdict comes by a message, or does not.
void AbortChannel::look_at_own_threads() {
  if (failure_ || !watchdog_.watches()) return;
  if (const int64_t turns = turns_.load(std::memory_order_relaxed); turns != turns_seen_) {
    turns_seen_ = turns;
    turned_ = Clock::now();
  }
  if (appeal_) {
    if (Clock::now() < appeal_->end) return;
    cut_off_ = rank_0_is_elsewhere();
    return decide_and_tell(std::move(appeal_->otherwise));
  }
  const double seconds = std::chrono::duration<double>(Clock::now() - own_.since).count();
  const std::optional<std::string> late =
      watchdog_.look({own_.waiting, seconds, stuck_in_mpi_s(), {own_.what.data(), own_.what_length}});
  if (!late) return;
  Failure otherwise = appeal(*late, true);
  appeal_ = Appeal{std::move(otherwise),
                   Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(options_.answer_s + 1 + stagger_s()))};
}

void AbortChannel::begin_wait(std::string_view what, std::string_view communicator) noexcept {
  const std::lock_guard lock(mutex_);
  own_.waiting = true;
  own_.since = Clock::now();
  own_.what_length = 0;
  for (const std::string_view part : {what, std::string_view(" on communicator "), communicator}) {
    const std::size_t count = std::min(part.size(), own_.what.size() - own_.what_length);
    std::copy_n(part.begin(), count, own_.what.begin() + own_.what_length);
    own_.what_length += count;
  }
}

void AbortChannel::end_wait() noexcept {
  const std::lock_guard lock(mutex_);
  own_.waiting = false;
  own_.since = Clock::now();
  if (std::exchange(own_.published, false) && !is_hub()) send(peers_[0], SignalKind::status, own_news());
}

void AbortChannel::publish_wait() noexcept {
  const std::lock_guard lock(mutex_);
  own_.published = true;
  if (!is_hub()) send(peers_[0], SignalKind::status, own_news());
}

RankState AbortChannel::own_state() const {
  RankState state;
  state.rank = rank_;
  state.host = host_;
  state.waiting = own_.waiting;
  state.seconds = std::chrono::duration<double>(Clock::now() - own_.since).count();
  state.what.assign(own_.what.data(), own_.what_length);
  if (const double seconds = stuck_in_mpi_s(); seconds > 0) {
    state.waiting = false;
    state.blocking =
        fmt::format("is in a call of MPI that does not return, since {:.0f} s, for {}", seconds, state.what);
  }
  const std::vector<watch::Doing> threads = watch::look();
  if (!threads.empty() && !threads[0].position.empty())
    state.position = threads[0].position + watch::process_place();
  for (const watch::Doing& doing : threads) {
    if (doing.blocking.empty()) continue;
    if (!state.blocking.empty()) state.blocking += "; ";
    if (&doing != threads.data()) state.blocking += doing.thread + " ";
    state.blocking += fmt::format("{} since {:.0f} s", doing.blocking, doing.unmoved_s);
  }
  return state;
}

std::string AbortChannel::own_news() const {
  return to_news(own_state());
}

std::vector<RankState> AbortChannel::states() const {
  const std::lock_guard lock(mutex_);
  return states_locked();
}

std::vector<RankState> AbortChannel::states_locked() const {
  std::vector<RankState> states = {own_state()};
  if (is_hub()) {
    for (const Peer& peer : peers_) states.push_back(peer.state);
  }
  return states;
}

/// Sends with this rank's state in the head.
void AbortChannel::send(Peer& peer, SignalKind kind, std::string_view text, int speaker) {
  if (!peer.connection.socket) return;
  const bool waits = own_.waiting && stuck_in_mpi_s() == 0;
  MessageHead head{kind, rank_, waits ? 1 : 0, speaker};
  head.seconds = std::chrono::duration<double>(Clock::now() - own_.since).count();
  send_message(peer.connection.socket, head, text, kSendSeconds);
}

void AbortChannel::begin_inquiry(int rank, bool names_rank, std::string_view text) {
  if (failure_ || inquiry_) return;
  inquiry_ = Inquiry{rank, names_rank, std::string(text),
                     Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                        std::chrono::duration<double>(options_.answer_s))};
  for (Peer& peer : peers_) {
    peer.state.answers = false;
    send(peer, SignalKind::question, "");
  }
  wake();
}

void AbortChannel::finish_inquiry_if_due() {
  if (!inquiry_ || failure_) return;
  const bool all = std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.state.answers; });
  if (!all && Clock::now() < inquiry_->end) return;
  const Inquiry inquiry = std::move(*inquiry_);
  inquiry_.reset();
  std::string text = wait_report(inquiry.text, states_locked(),
                                 inquiry.names_rank ? std::optional(inquiry.rank) : std::nullopt);
  if (const std::string folder = watchdog_.report_folder(); !folder.empty())
    text += fmt::format("\n  stacks, and more of what each rank did: {}/rank_N.txt", folder);
  decide_and_tell({inquiry.rank, kWatchdog, rank_, std::move(text)});
}

}  // namespace red::parallel

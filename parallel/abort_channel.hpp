// The side channel between all ranks that is not MPI, because MPI may be what is stuck: a star of TCP
// connections around rank 0, with one sleeping thread per rank. It carries the first failure of the run to
// everyone, who waits for what, the death of a rank (its connection closes), and notices, which end nothing.
// Rank 0 decides which failure was the first. The same thread watches the others of its process
// (parallel/watchdog).
#pragma once

#include <mpi.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "parallel/notices.hpp"
#include "parallel/star.hpp"
#include "parallel/wait_report.hpp"
#include "parallel/watchdog.hpp"

namespace red::parallel {

/// What ended the run.
struct Failure {
  int rank = 0;  ///< whom it happened to
  int exit_code = static_cast<int>(ExitCode::internal);
  int speaker = 0;  ///< the one rank that prints the text
  std::string text;
};

/// What a wait throws when another rank failed.
class RemoteFailure : public CommunicationError {
 public:
  explicit RemoteFailure(Failure failure)
      : CommunicationError("rank {} failed: {}", failure.rank, failure.text), failure_(std::move(failure)) {}
  const Failure& failure() const { return failure_; }

 private:
  Failure failure_;
};

struct AbortOptions {
  double connect_s = 30;  ///< for all ranks to connect at start-up
  double answer_s = 2;    ///< a rank that takes longer to answer counts as stopped
  double grace_s = 10;    ///< a rank that has not left this long after a failure is ended by its own thread
  WatchOptions watch;
};

class AbortChannel final : public NoticeBoard {
 public:
  /// Collective over world; every rank throws CommunicationError when one cannot connect.
  AbortChannel(MPI_Comm world, const AbortOptions& options);
  ~AbortChannel() override { close(); }
  AbortChannel(const AbortChannel&) = delete;
  AbortChannel& operator=(const AbortChannel&) = delete;

  /// Cheap enough for every turn of a waiting loop.
  bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }
  [[noreturn]] void throw_failure() const;
  /// Whether the run ended here because rank 0, on another machine, could not be reached.
  bool cut_off() const;

  /// Ends the run for everyone. Returns the run's first failure, which need not be this one.
  Failure abort(int exit_code, std::string_view text);
  /// A wait passed its deadline: asks all ranks what they do and ends the run with the answers in the text.
  Failure overdue(std::string_view text);

  int32_t new_subject() override;
  void post(int32_t subject, const std::string& text) override;
  void listen(std::function<void(const Notice&)> listener) override;

  /// What this rank does, for the report of overdue(): no allocation, no message.
  void begin_wait(std::string_view what, std::string_view communicator) noexcept;
  void end_wait() noexcept;
  /// In every turn of a waiting loop: a main thread that does not come back from MPI makes none.
  void turn() noexcept {
    turns_.store(turns_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }
  /// Sends rank 0 the wait that goes on. The next end_wait() takes it back.
  void publish_wait() noexcept;
  /// On rank 0: every rank's last known state. Elsewhere: the own one.
  std::vector<RankState> states() const;

  /// Whether the failure has been printed, here or elsewhere; told() says that it has.
  bool is_told() const;
  void told();
  /// After a failure, before the process ends: waits until the failure has been printed, until every rank is
  /// here, and on rank 0 until the others have gone, whose news come through here; in all at most this long.
  /// A launcher may end all ranks as soon as one has left, and the exit code of a rank that it ends is lost.
  void linger(double seconds);
  /// The orderly end: the others take the closed connection for no death.
  void close() noexcept;

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {  ///< another end of the star: on rank 0 all other ranks, elsewhere rank 0
    StarConnection connection;
    RankState state;
    bool orderly = false;  ///< said goodbye
    bool ready = false;    ///< could leave
  };
  struct Inquiry {
    int rank = 0;
    bool names_rank = false;  ///< the text says what that rank itself does
    std::string text;
    Clock::time_point end;
  };
  struct Appeal {       ///< to rank 0, about a thread of this process
    Failure otherwise;  ///< when rank 0 does not answer
    Clock::time_point end;
  };
  struct OwnState {
    bool waiting = false, published = false;
    std::array<char, 240> what{};
    std::size_t what_length = 0;
    Clock::time_point since = Clock::now();
  };

  bool is_hub() const { return rank_ == 0; }
  void start_thread();
  void wake();
  void run();
  int timeout_ms() const;
  void take_messages(Peer& peer);
  void handle(Peer& peer, const MessageHead& head, std::string_view text);
  void lost(Peer& peer);
  void decide(Failure failure);
  void decide_and_tell(Failure failure);
  void spread_told();
  void spread(const Notice& notice);
  void leave_together(std::unique_lock<std::mutex>& lock, Clock::time_point end);
  Failure appeal(std::string_view text, bool names_rank);
  double stagger_s() const;
  void look_at_own_threads();
  double stuck_in_mpi_s() const;
  void begin_inquiry(int rank, bool names_rank, std::string_view text);
  void finish_inquiry_if_due();
  void write_report_if_due(std::unique_lock<std::mutex>& lock);
  void end_process_if_due();
  std::string own_news() const;
  RankState own_state() const;
  std::vector<RankState> states_locked() const;
  void send(Peer& peer, SignalKind kind, std::string_view text, int speaker = 0);
  Failure await_verdict(std::unique_lock<std::mutex>& lock, double seconds, Failure otherwise);
  bool rank_0_is_elsewhere() const { return !is_hub() && !peers_.empty() && peers_[0].state.host != host_; }

  // A message is small and connections are idle: one that takes longer than this goes nowhere.
  static constexpr double kSendSeconds = 1;

  AbortOptions options_;
  int rank_ = 0;
  int size_ = 1;
  std::string host_;

  mutable std::mutex mutex_;  ///< of everything below
  std::condition_variable changed_;
  std::vector<Peer> peers_;
  OwnState own_;
  std::optional<Failure> failure_;
  std::optional<Inquiry> inquiry_;
  std::optional<Appeal> appeal_;
  std::function<void(const Notice&)> listener_;
  int32_t last_subject_ = 0;
  Watchdog watchdog_;
  Clock::time_point end_of_grace_;
  std::atomic<bool> failed_{false};
  std::atomic<int64_t> turns_{0};
  int64_t turns_seen_ = 0;
  Clock::time_point turned_ = Clock::now();  ///< when the loop was last seen to have turned
  bool told_ = false;
  bool may_leave_ = false;  ///< on other ranks than 0: everybody could
  bool cut_off_ = false;
  bool asking_ = false;      ///< the main thread waits for the verdict on its own wait
  bool report_due_ = false;  ///< what this rank did when a deadline passed is to be written
  bool stop_ = false;
  FileDescriptor wake_;  ///< eventfd: something changed that the thread should look at
  std::thread thread_;
};

}  // namespace red::parallel

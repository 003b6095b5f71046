#include "parallel/mpi_context.hpp"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "base/check.hpp"
#include "base/failure.hpp"
#include "base/log.hpp"

namespace red::parallel {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A turn of the loop that takes longer: the whole job was suspended (a scheduler does that), and others with
// it. That time is nobody's fault.
constexpr double kSuspendedSeconds = 5;

// Most waits end within microseconds; after that the core may be somebody else's.
constexpr int kSpins = 200;

// Enough for everybody to hear why the run ends, on a busy machine too.
constexpr double kLingerSeconds = 3;

/// A Request that died before its wait: its memory may still be written to, so its record is never used
/// again. While an exception unwinds that is how things are; otherwise it is a bug to be told.
bool told_unfinished(const MpiOperation& operation) noexcept {
  if (operation.done()) return false;
  if (std::uncaught_exceptions() == 0) log::rank_error("a request was dropped before it was waited for");
  return true;
}

/// mpirun has a daemon on each other machine, which waits for mpirun's word; where the network is gone it
/// would wait on TCP for a quarter of an hour. Asked to end, it also ends the ranks that are left here.
void end_daemon_of_launcher() {
  const pid_t parent = getppid();
  std::ifstream in(fmt::format("/proc/{}/comm", parent));
  std::string name;
  if (std::getline(in, name) && (name == "orted" || name == "prted")) kill(parent, SIGTERM);
}

}  // namespace

MpiContext::MpiContext(MPI_Comm world, const MpiOptions& options)
    : options_(options), channel_(world, options.abort) {
  RED_CHECK(options.max_elements >= 1 && options.max_elements <= std::numeric_limits<int32_t>::max(),
            "max_elements {}", options.max_elements);
  RED_CHECK(options.segment_bytes >= 64, "segment_bytes {}", options.segment_bytes);
  RED_MPI(MPI_Comm_rank(world, &world_rank_));
  RED_MPI(MPI_Comm_size(world, &world_size_));
  RED_MPI(MPI_Comm_dup(world, &silent_));
  RED_MPI(MPI_Comm_set_errhandler(silent_, MPI_ERRORS_RETURN));
}

MpiContext::~MpiContext() {
  if (!channel_.failed()) MPI_Comm_free(&silent_);
}

template <class Operation>
Operation& MpiContext::Pool<Operation>::take(MpiContext& context) {
  if (free.empty()) {
    all.push_back(std::make_unique<Operation>(context));
    free.reserve(all.capacity());
    return *all.back();
  }
  Operation& operation = *free.back();
  free.pop_back();
  return operation;
}

PlainOperation& MpiContext::new_plain() {
  return plain_.take(*this);
}

SmallAllReduce& MpiContext::new_small_all_reduce() {
  return small_.take(*this);
}

BlockExchange& MpiContext::new_exchange() {
  active_.reserve(exchanges_.all.size() + shared_.all.size() + 1);
  return exchanges_.take(*this);
}

SharedExchange& MpiContext::new_shared_exchange() {
  active_.reserve(exchanges_.all.size() + shared_.all.size() + 1);
  return shared_.take(*this);
}

void MpiContext::give_back(PlainOperation& operation) noexcept {
  if (!told_unfinished(operation)) plain_.put(operation);
}

void MpiContext::give_back(SmallAllReduce& operation) noexcept {
  if (!told_unfinished(operation)) small_.put(operation);
}

void MpiContext::give_back(BlockExchange& operation) noexcept {
  std::erase(active_, &operation);
  if (!told_unfinished(operation)) exchanges_.put(operation);
}

void MpiContext::give_back(SharedExchange& operation) noexcept {
  std::erase(active_, &operation);
  if (!told_unfinished(operation)) shared_.put(operation);
}

void MpiContext::progress() noexcept {
  if (error_ || channel_.failed()) return;
  try {
    int found = 0;
    RED_MPI(MPI_Iprobe(MPI_ANY_SOURCE, 0, silent_, &found, MPI_STATUS_IGNORE));
    std::erase_if(active_, [](MpiOperation* operation) { return operation->advance(); });
    if (companion_) companion_();
  } catch (...) {
    error_ = std::current_exception();
  }
}

void MpiContext::throw_if_failed() {
  if (channel_.failed()) channel_.throw_failure();
  if (error_) std::rethrow_exception(error_);
}

void MpiContext::wait(MpiOperation& operation, std::string_view what, std::string_view communicator) {
  const Clock::time_point start = Clock::now();
  wait_until([&operation] { return operation.advance(); }, what, communicator);
  wait_seconds_ += seconds_since(start);
}

void MpiContext::wait_until(const std::function<bool()>& done, std::string_view what,
                            std::string_view communicator) {
  throw_if_failed();
  const Clock::time_point start = Clock::now();
  channel_.begin_wait(what, communicator);
  bool published = false;
  Clock::time_point last = start;
  double suspended_s = 0;
  for (int64_t turn = 0; !done(); ++turn) {
    channel_.turn();
    progress();
    throw_if_failed();
    if (turn < kSpins) continue;
    sched_yield();
    const Clock::time_point now = Clock::now();
    const double between_s = std::chrono::duration<double>(now - last).count();
    if (between_s > kSuspendedSeconds) suspended_s += between_s;
    last = now;
    const double waited = std::chrono::duration<double>(now - start).count() - suspended_s;
    if (!published && waited > options_.report_after_s) {
      channel_.publish_wait();
      published = true;
    }
    if (waited > options_.deadline_s) {
      channel_.overdue(
          fmt::format("rank {} waited {:.1f} s for {} on communicator {}, more than the {:g} s allowed",
                      world_rank_, waited, what, communicator, options_.deadline_s));
      channel_.throw_failure();
    }
  }
  channel_.end_wait();
}

Failure MpiContext::announce(const std::exception_ptr& failure) {
  const FailureText text = describe_failure(failure);
  const Failure first = channel_.abort(static_cast<int>(text.code), text.message);
  std::fflush(nullptr);
  if (first.speaker == world_rank_ && !channel_.is_told()) {
    log::rank_error("{}", first.text);
    channel_.told();
  }
  return first;
}

void MpiContext::fail(const std::exception_ptr& failure) {
  // The launcher ends all ranks as soon as one has left. This one leaves by itself, and soon.
  std::signal(SIGTERM, SIG_IGN);
  const Failure first = announce(failure);
  if (on_failure_) std::exchange(on_failure_, {})(first);
  channel_.linger(kLingerSeconds);
  const bool cut_off = channel_.cut_off();
  channel_.close();
  if (cut_off) end_daemon_of_launcher();
  _exit(first.exit_code);
}

}  // namespace red::parallel

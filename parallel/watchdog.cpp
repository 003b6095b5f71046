#include "parallel/watchdog.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <future>
#include <memory>
#include <thread>
#include <utility>

#include "base/log.hpp"

namespace red::parallel {
namespace {

constexpr double kAnswerSeconds = 1.0;  ///< of a thread that is asked for its stack
constexpr std::chrono::seconds kWriteTime(2);
constexpr double kSuspendedSeconds = 3.0;  ///< between looks, which come every second or more often

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

/// The error, or nothing. Makes the folder, but not the one of the run: a run that never began has none.
std::string write_text(const std::filesystem::path& path, int flags, const std::string& text) {
  std::error_code error;
  std::filesystem::create_directory(path.parent_path(), error);
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666);
  if (file < 0 && errno == ENOENT) return "";
  if (file < 0) return std::strerror(errno);
  const ssize_t written = ::write(file, text.data(), text.size());
  std::string wrong = written == static_cast<ssize_t>(text.size()) ? ""
                      : written < 0                                ? std::strerror(errno)
                                                                   : "disk full";
  ::close(file);
  return wrong;
}

/// "step 12, reading samples, reading 'FILE'"
std::string what_of(const watch::Doing& doing) {
  if (doing.position.empty()) return doing.blocking.empty() ? "nothing to do" : doing.blocking;
  return doing.position + (doing.blocking.empty() ? "" : ", " + doing.blocking);
}

}  // namespace

Watchdog::Watchdog(const WatchOptions& options, int rank, const std::string& name)
    : options_(options), rank_(rank), name_(name) {
  if (watches() || !options.report_folder.empty()) prepare_stack_traces();
}

bool Watchdog::watches() const {
  return std::min(options_.compute_s, options_.io_s) < std::numeric_limits<double>::infinity();
}

std::chrono::milliseconds Watchdog::interval() const {
  const double seconds = std::clamp(std::min(options_.compute_s, options_.io_s) / 8, 0.05, 1.0);
  return std::chrono::milliseconds(static_cast<int>(1000 * seconds));
}

/// `wait`: of the main thread, if it is that.
std::optional<Watchdog::Late> Watchdog::late(const watch::Doing& doing, const MainWait* wait) const {
  Late found{what_of(doing), doing.unmoved_s, doing.computes ? options_.compute_s : options_.io_s};
  if (wait != nullptr && wait->waits) {
    // While MPI returns, the loop that waits looks at its deadline itself.
    found = {fmt::format("in a call of MPI that does not return, for {}", wait->what), wait->stuck_in_mpi_s,
             options_.compute_s};
  } else if (!doing.computes && doing.blocking.empty()) {
    return std::nullopt;
  } else if (wait != nullptr) {
    found.seconds = std::min(found.seconds, wait->seconds);
  }
  found.seconds = std::min(found.seconds, seconds_since(resumed_));
  return found.seconds > found.limit_s ? std::optional(found) : std::nullopt;
}

std::optional<std::string> Watchdog::look(const MainWait& wait) {
  const Clock::time_point now = Clock::now();
  if (std::chrono::duration<double>(now - std::exchange(last_look_, now)).count() > kSuspendedSeconds)
    resumed_ = now;
  const MainWait* mains = &wait;
  for (const watch::Doing& doing : watch::look()) {
    const std::optional<Late> found = late(doing, std::exchange(mains, nullptr));
    if (!found) continue;
    return fmt::format("{}{}: its {} is stuck: {} since {:.1f} s, more than the {:g} s allowed", name_,
                       watch::process_place(), doing.thread, found->doing, found->seconds, found->limit_s);
  }
  return std::nullopt;
}

void Watchdog::take_stacks() {
  if (options_.report_folder.empty()) return;
  seen_.clear();
  for (watch::Doing& doing : watch::look()) {
    Seen& seen = seen_.emplace_back();
    seen.doing = std::move(doing);
    seen.kernel = thread_in_kernel(seen.doing.id);
    seen.answered = take_stack_trace(seen.doing.id, kAnswerSeconds, seen.trace);
  }
}

std::string Watchdog::report(const std::string& failure, const std::string& wait) const {
  std::tm local{};
  const std::time_t now = std::time(nullptr);
  localtime_r(&now, &local);
  std::string text = fmt::format("==== {:%F %T}: {}{}, process {}\n{}\n{}\n", local, name_,
                                 watch::process_place(), ::getpid(), failure, wait);
  for (const Seen& seen : seen_) {
    const watch::Doing& doing = seen.doing;
    text += fmt::format("\n{}, {}: {} since {:.1f} s\n", doing.thread, seen.kernel, what_of(doing),
                        doing.unmoved_s);
    text += seen.answered ? to_text(seen.trace)
                          : "  no stack: it takes no signals, as in a call of the system that nothing ends\n";
  }
  return text + "\n";
}

void Watchdog::write_end(int exit_code) const {
  write_within_time("ended", O_TRUNC, [exit_code] { return fmt::format("{}\n", exit_code); });
}

void Watchdog::write_report(const std::string& failure, const std::string& wait) const {
  write_within_time(fmt::format("rank_{}.txt", rank_), O_APPEND,
                    [watchdog = *this, failure, wait] { return watchdog.report(failure, wait); });
}

/// The text is made beside it too: names of functions take memory, and that may be what a thread is stuck in.
void Watchdog::write_within_time(const std::string& name, int flags,
                                 std::function<std::string()> text) const {
  if (options_.report_folder.empty()) return;
  const std::filesystem::path path = options_.report_folder / name;
  auto done = std::make_shared<std::promise<std::string>>();
  std::future<std::string> result = done->get_future();
  std::thread([done, path, flags, make = std::move(text)] {
    done->set_value(write_text(path, flags, make()));
  }).detach();
  if (result.wait_for(kWriteTime) != std::future_status::ready) {
    log::rank_warning("the disk of '{}' does not answer: it is not written", path.string());
  } else if (const std::string wrong = result.get(); !wrong.empty()) {
    log::rank_warning("cannot write '{}': {}", path.string(), wrong);
  }
}

}  // namespace red::parallel

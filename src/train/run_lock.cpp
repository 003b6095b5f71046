#include "train/run_lock.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "base/error.hpp"
#include "base/log.hpp"
#include "base/stop_signal.hpp"

namespace red::train {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

fs::path lock_path(const fs::path& run_dir) {
  return run_dir / "run.lock";
}

std::string first_line(const char* path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

/// State and start of a process; state 0: there is none that can be read.
struct ProcessStat {
  char state = 0;
  uint64_t started = 0;
};

ProcessStat stat_of(int64_t pid) {
  const std::string line = first_line(fmt::format("/proc/{}/stat", pid).c_str());
  const std::size_t end = line.rfind(')');  // the program's name, which may hold anything, is in ( )
  if (end == std::string::npos) return {};
  std::istringstream words(line.substr(end + 1));
  ProcessStat stat;
  words >> stat.state;
  std::string word;
  constexpr int between = 18;  // fields 4 to 21 of proc(5)
  for (int i = 0; i < between; ++i) words >> word;
  words >> stat.started;
  return stat;
}

std::string scheduler_job() {
  for (const char* name : {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"}) {
    if (const char* value = std::getenv(name); value != nullptr && *value != 0) return value;
  }
  return {};
}

std::string to_json(const RunHolder& holder) {
  const nlohmann::ordered_json json = {{"id", holder.id},       {"host", holder.host},
                                       {"place", holder.place}, {"job_id", holder.job_id},
                                       {"pid", holder.pid},     {"started", holder.started}};
  return json.dump() + "\n";
}

std::optional<RunHolder> holder_from(const std::string& text) {
  try {
    const auto json = nlohmann::json::parse(text);
    RunHolder holder;
    json.at("id").get_to(holder.id);
    json.at("host").get_to(holder.host);
    json.at("place").get_to(holder.place);
    json.at("job_id").get_to(holder.job_id);
    json.at("pid").get_to(holder.pid);
    json.at("started").get_to(holder.started);
    return holder;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  }
}

double seconds(milliseconds time) {
  return std::chrono::duration<double>(time).count();
}

std::string name_of(const LockSighting& seen) {
  return seen.holder ? seen.holder->text() : "somebody who left no name";
}

/// A new file of this text; -1 where there is one of this name. Throws IoError.
int create_file(const fs::path& path, const std::string& text) {
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
                                0666);  // NOLINT(cppcoreguidelines-pro-type-vararg)
  if (descriptor < 0 && errno == EEXIST) return -1;
  if (descriptor < 0) throw IoError("{}: cannot make it: {}", path.string(), std::strerror(errno));
  if (::write(descriptor, text.data(), text.size()) == static_cast<ssize_t>(text.size())) return descriptor;
  const int reason = errno;
  ::unlink(path.c_str());
  ::close(descriptor);
  throw IoError("{}: cannot write: {}", path.string(), std::strerror(reason));
}

}  // namespace

std::string RunHolder::text() const {
  return fmt::format("{}host {}, process {}", job_id.empty() ? "" : fmt::format("job {} on ", job_id), host,
                     pid);
}

RunHolder own_holder(const std::string& id) {
  std::array<char, 256> host{};
  ::gethostname(host.data(), host.size() - 1);
  std::error_code ignored;
  RunHolder holder;
  holder.id = id;
  holder.host = host.data();
  holder.place = fmt::format("{} {} {}", host.data(), first_line("/proc/sys/kernel/random/boot_id"),
                             fs::read_symlink("/proc/self/ns/pid", ignored).string());
  holder.job_id = scheduler_job();
  holder.pid = ::getpid();
  holder.started = stat_of(holder.pid).started;
  return holder;
}

Process process_of(const RunHolder& holder) {
  if (holder.place != own_holder({}).place) return Process::elsewhere;
  const bool exists = ::kill(static_cast<pid_t>(holder.pid), 0) == 0 || errno == EPERM;
  if (!exists) return Process::dead;
  const ProcessStat stat = stat_of(holder.pid);
  if (stat.state == 0) return Process::alive;  // /proc may hide other people's
  const bool ended = stat.state == 'Z' || stat.state == 'X';
  return ended || stat.started != holder.started ? Process::dead : Process::alive;
}

std::optional<LockSighting> look_at_lock(const fs::path& run_dir) {
  const int descriptor =
      ::open(lock_path(run_dir).c_str(), O_RDONLY | O_CLOEXEC);  // NOLINT(cppcoreguidelines-pro-type-vararg)
  if (descriptor < 0) return std::nullopt;
  struct stat status {};
  std::array<char, 2048> text{};
  const bool known = ::fstat(descriptor, &status) == 0;
  const ssize_t length = ::read(descriptor, text.data(), text.size());
  ::close(descriptor);
  if (!known) return std::nullopt;
  LockSighting seen;
  if (length > 0) seen.holder = holder_from({text.data(), static_cast<std::size_t>(length)});
  seen.inode = status.st_ino;
  seen.renewed_ns = status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  seen.age_s =
      std::max(0.0, std::chrono::duration<double>(now).count() - 1e-9 * static_cast<double>(seen.renewed_ns));
  return seen;
}

bool may_be_alive(const LockSighting& seen, const RunLockTiming& timing) {
  const Process process = seen.holder ? process_of(*seen.holder) : Process::elsewhere;
  if (process != Process::elsewhere) return process == Process::alive;
  return seen.age_s < seconds(timing.dead_after);
}

RunLock::RunLock(const fs::path& run_dir, const std::string& id, const RunLockTiming& timing)
    : run_dir_(run_dir), path_(lock_path(run_dir)), timing_(timing), text_(to_json(own_holder(id))) {
  while (!create()) {
    const auto seen = look_at_lock(run_dir_);
    if (!seen || !is_nobodys(*seen)) continue;  // it was given back, or changed hands
    take_over(*seen);
    break;
  }
  thread_ = std::thread([this] { work(); });
}

bool RunLock::create() {
  descriptor_ = create_file(path_, text_);
  return descriptor_ >= 0;
}

/// False: it is no longer what it was. A process of this host is asked for itself; of another host, that its
/// lock's time changes while it is watched, whatever the two clocks say.
bool RunLock::is_nobodys(const LockSighting& first) const {
  const auto begin = Clock::now();
  for (bool told = false;;) {
    const auto seen = look_at_lock(run_dir_);
    if (!seen || seen->inode != first.inode) return false;
    const Process process = seen->holder ? process_of(*seen->holder) : Process::elsewhere;
    const auto watched = Clock::now() - begin;
    if (process == Process::dead) return true;
    if (process == Process::alive && watched >= timing_.grace) refuse(*seen);
    if (process == Process::elsewhere) {
      if (seen->renewed_ns != first.renewed_ns) refuse(*seen);
      const double unchanged = first.age_s + std::chrono::duration<double>(watched).count();
      if (watched >= 2 * timing_.renew_every && unchanged >= seconds(timing_.dead_after)) return true;
      if (!std::exchange(told, true))
        log::info(
            "{} is held by {}, last renewed {:.0f} s ago: watching whether it is renewed, {:.0f} s at most",
            path_.string(), name_of(first), first.age_s, seconds(timing_.dead_after));
    }
    std::this_thread::sleep_for(std::min(timing_.renew_every / 10, milliseconds(100)));
  }
}

void RunLock::refuse(const LockSighting& seen) const {
  throw ConfigError(
      "{}: a run in this folder is alive: {}, which renewed its lock {:.0f} s ago; stop it (SIGTERM makes it "
      "save and leave), or give another train.run_dir",
      run_dir_.string(), name_of(seen), seen.age_s);
}

/// Whoever renames last has it; the others see that when it has settled.
void RunLock::take_over(const LockSighting& seen) {
  const fs::path aside = fmt::format("{}.{}", path_.string(), ::getpid());
  std::error_code error;
  fs::remove(aside, error);
  descriptor_ = create_file(aside, text_);
  if (descriptor_ < 0) throw IoError("{}: cannot make it: it is there already", aside.string());
  fs::rename(aside, path_, error);
  if (error) {
    ::close(std::exchange(descriptor_, -1));
    throw IoError("{}: cannot rename to {}: {}", aside.string(), path_.string(), error.message());
  }
  std::this_thread::sleep_for(timing_.settle);
  if (!is_own()) {
    ::close(std::exchange(descriptor_, -1));
    refuse(look_at_lock(run_dir_).value_or(LockSighting{}));
  }
  log::info("{}: taken over from {}, which is no more; last renewed {:.0f} s ago", path_.string(),
            name_of(seen), seen.age_s);
}

/// Also where that cannot be found out: a file system that does not answer takes nothing from anybody.
bool RunLock::is_own() const {
  struct stat there {
  }, own{};
  if (::fstat(descriptor_, &own) != 0) return errno != ESTALE;
  if (::stat(path_.c_str(), &there) != 0) return errno != ENOENT;
  return there.st_ino == own.st_ino && there.st_dev == own.st_dev;
}

void RunLock::renew() {
  ::futimens(descriptor_, nullptr);
  if (is_own()) return;
  struct stat there {};
  if (::stat(path_.c_str(), &there) != 0) {  // somebody removed it
    const int before = descriptor_;
    try {
      if (create()) {
        ::close(before);
        log::warning("{} was removed while its run is alive: made again", path_.string());
        return;
      }
    } catch (const IoError& error) {
      log::warning("{}", error.what());
    }
    descriptor_ = before;
    return;  // the next turn looks whose it is
  }
  lost_ = true;
}

void RunLock::work() {
  leave_stop_signals_to_others();
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, timing_.renew_every, [this] { return closing_; })) {
    lock.unlock();
    if (!lost_) renew();
    lock.lock();
  }
}

void RunLock::check() const {
  if (!lost_) return;
  const auto seen = look_at_lock(run_dir_);
  throw ConfigError(
      "{}: another run has taken this folder over, because this one did not renew its lock for {:.0f} s: {}",
      run_dir_.string(), seconds(timing_.dead_after), seen ? name_of(*seen) : "it is gone already");
}

void RunLock::release() noexcept {
  if (descriptor_ < 0) return;
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  if (!lost_ && is_own()) ::unlink(path_.c_str());
  ::close(std::exchange(descriptor_, -1));
}

}  // namespace red::train

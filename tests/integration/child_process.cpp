#include "integration/child_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <stdexcept>

namespace red::test {
namespace {

using Clock = std::chrono::steady_clock;

/// Two ends of a pipe, closed on exec and at the end.
class Pipe {
 public:
  Pipe() {
    if (::pipe2(ends_.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2 failed");
  }
  ~Pipe() {
    for (const int end : ends_)
      if (end >= 0) ::close(end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  int reader() const { return ends_[0]; }
  int writer() const { return ends_[1]; }
  void close_writer() {
    ::close(ends_[1]);
    ends_[1] = -1;
  }

 private:
  std::array<int, 2> ends_{};
};

[[noreturn]] void become(const std::vector<char*>& arguments, const char* directory, const Pipe& out,
                         const Pipe& err) {
  ::setpgid(0, 0);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, STDIN_FILENO);
  ::dup2(out.writer(), STDOUT_FILENO);
  ::dup2(err.writer(), STDERR_FILENO);
  if (::chdir(directory) == 0) ::execv(arguments[0], arguments.data());
  ::_exit(127);
}

/// Reads both pipes to their ends; false when the deadline passed before.
bool drain(const Pipe& out, const Pipe& err, ChildResult& result, Clock::time_point deadline) {
  std::array<pollfd, 2> fds = {pollfd{out.reader(), POLLIN, 0}, pollfd{err.reader(), POLLIN, 0}};
  std::array<std::string*, 2> texts = {&result.out, &result.err};
  std::array<char, 4096> buffer{};
  while (fds[0].fd >= 0 || fds[1].fd >= 0) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0 || ::poll(fds.data(), fds.size(), static_cast<int>(left)) == 0) return false;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      if (fds[i].fd < 0 || fds[i].revents == 0) continue;
      const ssize_t count = ::read(fds[i].fd, buffer.data(), buffer.size());
      if (count > 0) {
        texts[i]->append(buffer.data(), static_cast<std::size_t>(count));
      } else {
        fds[i].fd = -1;
      }
    }
  }
  return true;
}

}  // namespace

ChildResult run_child(const std::vector<std::string>& command, const std::filesystem::path& working_directory,
                      double deadline_s) {
  std::vector<std::string> words = command;
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  Pipe out, err;
  const std::string directory = working_directory.string();
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) become(arguments, directory.c_str(), out, err);
  out.close_writer();
  err.close_writer();
  ChildResult result;
  const auto deadline = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(deadline_s * 1000));
  if (!drain(out, err, result, deadline)) ::kill(-child, SIGKILL);
  int status = 0;
  rusage usage{};
  ::wait4(child, &status, 0, &usage);
  if (WIFEXITED(status)) result.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) result.signal = WTERMSIG(status);
  if (result.exit_code == 127) throw std::runtime_error("cannot run " + command.front());
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  result.cpu_s = seconds(usage.ru_utime) + seconds(usage.ru_stime);
  result.max_rss_kib = usage.ru_maxrss;
  return result;
}

}  // namespace red::test

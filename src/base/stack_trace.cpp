#include "base/stack_trace.hpp"

#include <cxxabi.h>
#include <dlfcn.h>
#include <execinfo.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>

#include "base/signal_stack.hpp"

namespace red {
namespace {

/// Nobody else uses it: launchers and schedulers have none of the real-time signals.
int trace_signal() {
  return SIGRTMIN + 6;
}

constexpr pid_t kNobody = 0, kAtWork = -1;

/// Between the one who asks and the handler; a process has one signal disposition, so one of these.
struct Exchange {
  std::atomic<pid_t> wanted{kNobody};
  std::atomic<bool> done{false};
  StackTrace trace;
  std::mutex asking;
};
Exchange exchange;

extern "C" void write_frames_down(int) {
  const int error = errno;
  pid_t wanted = static_cast<pid_t>(syscall(SYS_gettid));
  // Late answers are for nobody.
  if (exchange.wanted.compare_exchange_strong(wanted, kAtWork)) {
    exchange.trace.num_frames =
        backtrace(exchange.trace.frames.data(), static_cast<int>(exchange.trace.frames.size()));
    exchange.done.store(true, std::memory_order_release);
  }
  errno = error;
}

bool answered_within(double timeout_s) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
  while (!exchange.done.load(std::memory_order_acquire)) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::string function_name(const Dl_info& info) {
  if (info.dli_sname == nullptr) return "?";
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), std::free);
  return status == 0 ? plain.get() : info.dli_sname;
}

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace

void prepare_stack_traces() {
  // The unwinder is loaded at its first use, which a handler must not be.
  StackTrace unused;
  backtrace(unused.frames.data(), 1);
  use_signal_stack();
  struct sigaction action = {};
  action.sa_handler = write_frames_down;
  action.sa_flags = SA_RESTART | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(trace_signal(), &action, nullptr);
}

bool take_stack_trace(pid_t thread, double timeout_s, StackTrace& trace) {
  if (thread == static_cast<pid_t>(syscall(SYS_gettid))) {
    trace.num_frames = backtrace(trace.frames.data(), static_cast<int>(trace.frames.size()));
    return true;
  }
  const std::lock_guard lock(exchange.asking);
  exchange.done = false;
  exchange.wanted = thread;
  if (syscall(SYS_tgkill, getpid(), thread, trace_signal()) != 0) {
    exchange.wanted = kNobody;
    return false;
  }
  if (!answered_within(timeout_s)) {
    pid_t still = thread;
    if (exchange.wanted.compare_exchange_strong(still, kNobody)) return false;
    // It has just begun, and unwinding is short.
    if (!answered_within(timeout_s)) return false;
  }
  trace = exchange.trace;
  return true;
}

std::string to_text(const StackTrace& trace) {
  std::string text;
  for (int i = 0; i < trace.num_frames; ++i) {
    Dl_info info{};
    const auto* frame = static_cast<const char*>(trace.frames[static_cast<std::size_t>(i)]);
    const auto address = reinterpret_cast<std::uintptr_t>(frame);
    // One before: a return address may lie behind the end of a function that never returns.
    if (dladdr(frame - 1, &info) == 0) {
      text += fmt::format("  #{} {:#x}\n", i, address);
      continue;
    }
    text += fmt::format("  #{} {} ({}+{:#x})\n", i, function_name(info), info.dli_fname,
                        address - reinterpret_cast<std::uintptr_t>(info.dli_fbase));
  }
  return text;
}

std::string thread_in_kernel(pid_t thread) {
  const std::string folder = fmt::format("/proc/self/task/{}/", thread);
  const std::string status = first_line(folder + "stat");
  const std::size_t name_end = status.rfind(')');
  std::string text = "state ";
  text += name_end != std::string::npos && name_end + 2 < status.size() ? status[name_end + 2] : '?';
  const std::string place = first_line(folder + "wchan");
  if (!place.empty() && place != "0") text += ", in " + place;
  return text;
}

}  // namespace red

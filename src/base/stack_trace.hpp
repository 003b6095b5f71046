// The stack of another thread of this process, however stuck that is: a signal makes the thread write down
// its frames, and whoever asked gives them names. A thread that takes no signals (one in an uninterruptible
// call of the system, as on a network disk that is gone) has no stack to show; of it tells
// thread_in_kernel().
#pragma once

#include <sys/types.h>

#include <array>
#include <string>

namespace red {

struct StackTrace {
  std::array<void*, 64> frames{};
  int num_frames = 0;  ///< innermost first
};

/// Once, before the first take_stack_trace(), by the main thread.
void prepare_stack_traces();

/// Of the thread of this process with that id, which may be the caller's own. False when it did not answer
/// within the time. Past kernels that are generated at run time, nothing is seen.
bool take_stack_trace(pid_t thread, double timeout_s, StackTrace& trace);

/// One line for each frame: number, function where the program exports it, module and offset in it, which
/// addr2line takes.
std::string to_text(const StackTrace& trace);

/// "state D, in nfs_wait_bit_killable": as far as the system tells.
std::string thread_in_kernel(pid_t thread);

}  // namespace red

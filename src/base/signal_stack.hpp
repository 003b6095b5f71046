// Where signal handlers of a thread run.
#pragma once

namespace red {

/// Gives the calling thread, which is the main one, a stack of its own for signal handlers that ask for it
/// (SA_ONSTACK); once. oneDNN's kernels use the stack pointer for memory on the heap, which a handler on
/// their stack overwrites (seen: "corrupted size vs. prev_size"). Other threads of ours that run such kernels
/// take no signals.
void use_signal_stack();

}  // namespace red

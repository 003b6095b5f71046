// Being asked to stop: SIGTERM, SIGINT (a terminal's ^C) and SIGUSR1 (what launchers send before a job's time
// is up).
#pragma once

namespace red {

/// From now on the first of these signals is only remembered, as are others within three seconds: schedulers
/// and launchers hand one request on by several ways. A later SIGTERM or SIGINT ends the process as if nobody
/// caught it; a SIGUSR1 does not, because launch/supervise.sh repeats it so that none is lost.
/// The handler has a stack of its own (base/signal_stack). For the calling thread; threads that multiply
/// leave these signals to it.
void catch_stop_signals();
void leave_stop_signals_to_others();

/// The signal that has come; 0: none.
int stop_signal();

}  // namespace red

// Being asked to stop: SIGTERM, SIGINT (a terminal's ^C) and SIGUSR1 (what launchers send before a job's time
// is up).
#pragma once

namespace red {

/// From now on the first of these signals is only remembered, as are others within three seconds: schedulers
/// and launchers hand one request on by several ways. A later one ends the process as if nobody caught it.
void catch_stop_signals();

/// The signal that has come; 0: none.
int stop_signal();

}  // namespace red

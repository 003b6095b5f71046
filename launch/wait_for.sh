# Waiting for a run, for scripts that source this and hand signals on to it.
# shellcheck shell=bash

# wait_for PID: waits for a child's end and returns its code; calls `serve`, the script's own, at the beginning, after each signal
# and every two seconds: whatever a script or a run misses of a signal is made good then. Handlers of signals only take notes.
wait_for() {
  local pause=''
  while kill -0 "$1" 2>/dev/null; do
    serve
    if [ -z "$pause" ] || ! kill -0 "$pause" 2>/dev/null; then
      sleep 2 >/dev/null 2>&1 &
      pause=$!
    fi
    wait -n "$1" "$pause" 2>/dev/null || : # not even "Killed": whoever asked tells what it means
  done
  [ -z "$pause" ] || kill "$pause" 2>/dev/null || :
  wait "$1" 2>/dev/null || : # may end by a signal, whose number is not how the child ended
  wait "$1" 2>/dev/null
}

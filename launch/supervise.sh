#!/usr/bin/env bash
# Runs a training command to its end: hands signals on, waits for what was started, starts again what died.
# mpirun kills its ranks a second after a SIGTERM or SIGINT, but hands SIGUSR1 on and keeps their exit code: so whatever
# asks this script to stop becomes a SIGUSR1 there, on which all ranks save and leave with code 75.
# shellcheck disable=SC2317 # handlers of signals are reached
set -uo pipefail

usage() {
  cat <<'END'
usage: launch/supervise.sh [--max-restarts N] [--backoff SECONDS] [--run-dir FOLDER] -- COMMAND [ARGUMENTS...]
  --max-restarts N   starts COMMAND again when it dies, at most N times without progress (default 0)
  --backoff SECONDS  before the first restart, twice as long before each one after it, 300 at most (default 5)
  --run-dir FOLDER   of the run: progress is a newer checkpoint there, and makes the count begin again
SIGTERM, SIGINT, SIGUSR1: once, the command saves and leaves; again after three seconds, it is killed.
Ends with the command's code. Started again: 1, 4, 6, 7 and death by a signal; not 0 (done), 2 and 3 (configuration, data),
5 (not finite: it would be again) or 75 (asked to stop).
END
}

say() { echo "supervise: $(date +%H:%M:%S) $*" >&2; }

max_restarts=0 backoff=5 run_dir=''
while [ $# -gt 0 ]; do
  case $1 in
    --max-restarts | --backoff | --run-dir)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      case $1 in
        --max-restarts) max_restarts=$2 ;;
        --backoff) backoff=$2 ;;
        --run-dir) run_dir=$2 ;;
      esac
      shift
      ;;
    --) shift; break ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $# -ge 1 && $max_restarts =~ ^[0-9]+$ && $backoff =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }

child='' num_signals=0 first_signal=0 sleeping=''

on_signal() {
  # Slurm signals every process of a step, and they signal each other: within three seconds it is one request.
  if [ "$num_signals" -gt 0 ] && [ $((SECONDS - first_signal)) -le 3 ]; then return; fi
  if [ "$num_signals" = 0 ]; then first_signal=$SECONDS; fi
  num_signals=$((num_signals + 1))
  [ -z "$sleeping" ] || kill "$sleeping" 2>/dev/null
  [ -n "$child" ] || return
  if [ "$num_signals" = 1 ]; then
    say "SIG$1: asking the run to save and leave"
    kill -USR1 "$child" 2>/dev/null
  else
    say "SIG$1 again: killing the run"
    kill_session "$child"
  fi
}

# The command leads a session: whatever it started on this machine goes with it.
kill_session() {
  pkill -TERM --session "$1"
  (sleep 5; pkill -KILL --session "$1") &
}

newest_checkpoint() {
  [ -n "$run_dir" ] && cat "$run_dir/checkpoints/latest" 2>/dev/null
}

# run COMMAND...: once; sets code.
run() {
  setsid "$@" <&0 &
  child=$!
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break # otherwise a signal ended the wait alone
  done
  child=''
}

may_restart() {
  case $code in
    0 | 2 | 3 | 5 | 75) return 1 ;;
    *) [ "$num_signals" = 0 ] ;;
  esac
}

for name in TERM INT USR1; do
  # shellcheck disable=SC2064 # the name is meant now
  trap "on_signal $name" "$name"
done

restarts=0 pause=$backoff code=0
while :; do
  before=$(newest_checkpoint)
  run "$@"
  may_restart || break
  if [ "$(newest_checkpoint)" != "$before" ]; then restarts=0 pause=$backoff; fi
  if [ "$restarts" -ge "$max_restarts" ]; then
    [ "$max_restarts" = 0 ] || say "ended with $code, $restarts restarts without progress: giving up"
    break
  fi
  restarts=$((restarts + 1))
  say "ended with $code: restart $restarts of $max_restarts in $pause s"
  sleep "$pause" &
  sleeping=$!
  wait "$sleeping"
  sleeping=''
  [ "$num_signals" = 0 ] || break
  pause=$((pause * 2 < 300 ? pause * 2 : 300))
done
exit "$code"

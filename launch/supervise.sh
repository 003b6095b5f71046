#!/usr/bin/env bash
# Runs a training command to its end: hands signals on, waits for what was started, starts again what died.
# mpirun kills its ranks a second after a SIGTERM or SIGINT, but hands SIGUSR1 on and keeps their exit code: so whatever
# asks this script to stop becomes a SIGUSR1 there, on which all ranks save and leave with code 75.
# shellcheck disable=SC2317 # handlers of signals are reached
set -uo pipefail

# shellcheck source=launch/wait_for.sh
source "$(dirname "${BASH_SOURCE[0]}")/wait_for.sh"

usage() {
  cat <<'END'
usage: launch/supervise.sh [OPTIONS] -- COMMAND [ARGUMENTS...]
  --max-restarts N   starts COMMAND again when it dies, at most N times without progress (default 0)
  --backoff SECONDS  before the first restart, twice as long before each one after it, 300 at most (default 5)
  --run-dir FOLDER   of the run: progress is a newer checkpoint there, and makes the count begin again
  --max-same-step N  with --run-dir: starts nothing again that died N times in a row in the same step (default 3; 0: does),
                     and says which samples that step has and how to leave them out
SIGTERM, SIGINT, SIGUSR1: the command saves and leaves; SIGTERM or SIGINT four seconds after that or later: it is killed, and the
code is 143.
Ends with the command's code. Started again: 1, 4, 6, 7, 8 and death by a signal; not 0 (done), 2 and 3 (configuration, data),
5 (not finite: it would be again), 9 (a machine is not fit) or 75 (asked to stop; death by SIGUSR1 is that too).
A launcher that is still there 14 s after its ranks ended the run (RUN/watchdog/ended), as mpirun is where a machine or the
network to it is gone, is killed, and the run's code is what the ranks wrote there.
END
}

say() { printf 'supervise: %(%H:%M:%S)T %s\n' -1 "$*" >&2; }

max_restarts=0 backoff=5 run_dir='' max_same_step=3
while [ $# -gt 0 ]; do
  case $1 in
    --max-restarts | --backoff | --run-dir | --max-same-step)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      case $1 in
        --max-restarts) max_restarts=$2 ;;
        --backoff) backoff=$2 ;;
        --run-dir) run_dir=$2 ;;
        --max-same-step) max_same_step=$2 ;;
      esac
      shift
      ;;
    --) shift; break ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $# -ge 1 && $max_restarts =~ ^[0-9]+$ && $backoff =~ ^[0-9]+$ && $max_same_step =~ ^[0-9]+$ ]] || { usage >&2; exit 2; }

ended=$run_dir/watchdog/ended
child='' num_signals=0 first_signal=0 last_signal='' told=0

on_signal() {
  if [ "$num_signals" = 0 ]; then
    num_signals=1 first_signal=$SECONDS last_signal=$1
  # Slurm signals every process of a step, and they signal each other: within three seconds it is one request. A SIGUSR1 may be
  # repeated at any time, so that none is lost.
  elif [ "$1" != USR1 ] && [ $((SECONDS - first_signal)) -gt 3 ]; then
    num_signals=2 last_signal=$1
  fi
}

# Does what was asked for. A launcher or rank that is just being started may lose a SIGUSR1: it is sent until the command ends.
serve() {
  case $num_signals in
    1)
      kill -USR1 "$child" 2>/dev/null
      [ "$told" -ge 1 ] || say "SIG$last_signal: asking the run to save and leave"
      ;;
    2)
      [ "$told" -ge 2 ] || { say "SIG$last_signal again: killing the run"; kill_session "$child"; }
      ;;
  esac
  told=$num_signals
}

# The command leads a session: whatever it started on this machine goes with it.
kill_session() {
  pkill -TERM --session "$1"
  (sleep 5; pkill -KILL --session "$1") >/dev/null 2>&1 &
}

newest_checkpoint() {
  [ -n "$run_dir" ] && cat "$run_dir/checkpoints/latest" 2>/dev/null
}

# Which step training is in, where a run that was started since `mark_before` was taken began one.
mark() { [ -n "$run_dir" ] && stat -c '%i %y' "$run_dir/at_step" 2>/dev/null; }
step_begun() {
  local step=''
  if [ "$(mark)" != "$mark_before" ]; then read -r step <"$run_dir/at_step"; fi
  echo "$step"
}

show_samples() { # show_samples STEP COMMAND...: by the program that COMMAND trains with
  local program='' word
  for word in "${@:2}"; do
    [ "$word" != train ] || break
    program=$word
  done
  say "samples of step $1, and how to leave them out: ${program:-redllm} inspect samples $run_dir --step $1"
  [ "${word:-}" = train ] && type -P "$program" >/dev/null || return
  # Its own process, not one more rank of the job that this script is in.
  (
    unset "${!SLURM_@}" "${!OMPI_@}" "${!PMI@}" 2>/dev/null
    timeout 120 "$program" inspect samples "$run_dir" --step "$1" 2>&1 | head -n 40 >&2
  )
}

# In the background beside a run: where its ranks are gone, having told why, its launcher must not stay.
end_what_stays() { # end_what_stays SESSION
  local seconds=0
  while sleep 2 >/dev/null 2>&1 && kill -0 "$1" 2>/dev/null; do
    if [ -e "$ended" ] && ! pgrep --session "$1" redllm >/dev/null; then seconds=$((seconds + 2)); else seconds=0; fi
    [ "$seconds" -ge 14 ] || continue # ranks give each other ten seconds, and srun's are in sessions of their own
    say "the ranks ended the run, its launcher is still there: killing it"
    pkill -KILL --session "$1"
    return
  done
}

# run COMMAND...: once; sets code.
run() {
  [ -z "$run_dir" ] || rm -f "$ended"
  mark_before=$(mark)
  setsid "$@" <&0 &
  child=$!
  local guard=''
  if [ -n "$run_dir" ]; then
    end_what_stays "$child" &
    guard=$!
  fi
  wait_for "$child"
  code=$?
  child=''
  [ -z "$guard" ] || kill "$guard" 2>/dev/null
  # A launcher that was killed, or that saw a rank die first, knows less.
  if [ "$code" -gt 128 ] && [ -e "$ended" ]; then code=$(head -n 1 "$ended"); fi
  if was_asked_too_early; then code=75; fi
  # mpirun tells what it saw first of ranks that are killed.
  if [ "$told" = 2 ] && [ "$code" != 0 ] && [ "$code" != 75 ]; then code=143; fi
}

# Ranks and launchers die of a signal that comes before they listen, and nothing is lost: of a SIGUSR1, which nobody sends for
# anything else, whoever got it; of SIGINT or SIGTERM, where a step of Slurm's was signalled as this script was.
was_asked_too_early() {
  [ "$code" = 138 ] || { [ "$num_signals" = 1 ] && { [ "$code" = 130 ] || [ "$code" = 143 ]; }; }
}

may_restart() {
  case $code in
    0 | 2 | 3 | 5 | 9 | 75) return 1 ;;
    *) [ "$num_signals" = 0 ] ;;
  esac
}

for name in TERM INT USR1; do
  # shellcheck disable=SC2064 # the name is meant now
  trap "on_signal $name" "$name"
done

restarts=0 pause=$backoff code=0 same_step='' deaths_there=0 mark_before=''
while :; do
  before=$(newest_checkpoint)
  run "$@"
  step=$(step_begun)
  if ! may_restart; then
    # What is wrong with the data would be again, but may be left out.
    if [ "$code" = 3 ] && [ -n "$step" ]; then show_samples "$step" "$@"; fi
    break
  fi
  if [ "$step" = "$same_step" ]; then deaths_there=$((deaths_there + 1)); else same_step=$step deaths_there=1; fi
  if [ -n "$step" ] && [ "$max_same_step" -gt 0 ] && [ "$deaths_there" -ge "$max_same_step" ]; then
    say "ended with $code, for the $deaths_there. time in step $step without getting further: giving up"
    show_samples "$step" "$@"
    break
  fi
  if [ "$(newest_checkpoint)" != "$before" ]; then restarts=0 pause=$backoff; fi
  if [ "$restarts" -ge "$max_restarts" ]; then
    [ "$max_restarts" = 0 ] || say "ended with $code, $restarts restarts without progress: giving up"
    break
  fi
  restarts=$((restarts + 1))
  say "ended with $code: restart $restarts of $max_restarts in $pause s"
  for ((second = 0; second < pause && num_signals == 0; ++second)); do sleep 1; done
  [ "$num_signals" = 0 ] || break
  pause=$((pause * 2 < 300 ? pause * 2 : 300))
done
exit "$code"

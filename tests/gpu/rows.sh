# What tests/gpu/run_all.sh does with each command: runs it within the time that is left, keeps its log, and writes its row into the
# results at once, so that whatever ends this loses one command at most. For scripts that source this.
# shellcheck shell=bash disable=SC2154 # run_all.sh sets what these read

bad=0 done_well=0 skipped=0 cut=0
record() { # record PART NAME ok|failed|skipped|cut SECONDS DETAIL
  case $3 in
    ok) done_well=$((done_well + 1)) ;;
    failed) bad=$((bad + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
    cut) cut=$((cut + 1)) ;;
  esac
  printf '%-8s %-12s %-50s %5s s  %s\n' "$3" "$1" "$2" "$4" "$5"
  [ "$dry" = no ] || return 0
  printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$out/records.tsv"
  [ "$3 $4" = "cut 0" ] || collect "$1" --unfinished
}
skip() { record "$1" "$2" skipped 0 "$3"; }  # skip PART NAME REASON: this machine lacks what it needs
lacks() { record "$1" "$2" failed 0 "$3"; } # lacks PART NAME REASON: it should be there

# Into the results, what there is of a part.
collect() { # collect PART [--unfinished]
  python3 tests/gpu/results.py --name "${name}_gpu" --part "$@" --run "$out" --program "$program" --lib "$libraries" \
    >"$out/results.log" || bad=$((bad + 1))
}

# Seconds until the time is over, less what an end takes; very many where none was named.
left() { echo $((deadline - SECONDS)); }

# Logs of all commands in one file, where results were asked for in a folder of their own.
keep_log() { # keep_log PART NAME LOG
  [ -n "$results" ] || return 0
  { printf '\n=== %s %s\n' "$1" "$2" && tail -qc 30000 "$3" "$3.err"; } >>"$results/${name}_gpu.log"
}

# run PART NAME LIMIT_S COMMAND...: its output goes to a log, whose end is shown where it fails. Where `must_say` is set, a
# command whose output has no such words has done something else than it was to, and failed; one that fails with the words of
# `excuse` is skipped, and this returns 2.
must_say='' excuse=''
run() {
  local part=$1 what=$2 limit=$3 log=$out/$1-${2//[^A-Za-z0-9_.-]/_}.log begin=$SECONDS code rest detail=''
  shift 3
  if [ "$dry" = yes ]; then
    printf '%s %s:' "$part" "$what"
    printf ' %q' "$@"
    printf '\n'
    return
  fi
  rest=$(left)
  if [ "$rest" -lt 2 ]; then
    record "$part" "$what" cut 0 "no time was left"
    return 1
  fi
  timeout -k 10 $((limit < rest ? limit : rest)) "$@" >"$log" 2>"$log.err" </dev/null &
  child=$!
  wait "$child" # which a signal interrupts, and a command in the foreground would not be
  code=$?
  child=''
  keep_log "$part" "$what" "$log"
  if [ "$code" = 0 ] && { [ -z "$must_say" ] || grep -qF "$must_say" "$log" "$log.err"; }; then
    record "$part" "$what" ok $((SECONDS - begin)) "$(grep -o '^\[  PASSED  \] .*' "$log" | tail -n 1)"
    return
  fi
  if [ "$code" != 0 ] && [ "$rest" -lt "$limit" ] && [ $((SECONDS - begin)) -ge "$rest" ]; then
    record "$part" "$what" cut $((SECONDS - begin)) "it ran until the time was over, see $log"
    return 1
  fi
  if [ -n "$excuse" ] && grep -qiF "$excuse" "$log" "$log.err"; then
    record "$part" "$what" skipped $((SECONDS - begin)) "it says: $excuse"
    return 2
  fi
  if [ "$code" = 0 ]; then detail="it did not say '$must_say'"; else detail="ended with $code"; fi
  if [ $((SECONDS - begin)) -ge "$limit" ]; then detail+=", which is no end within $limit s"; fi
  tail -n 30 "$log" "$log.err" >&2
  record "$part" "$what" failed $((SECONDS - begin)) "$detail, see $log"
  return 1
}

# measure PART NAME LIMIT_S COMMAND...: the same for a command whose output ends with JSON for the results, from the last line on
# that begins with a brace.
measure() {
  local log=$out/$1-$2.log
  run "$@" || return 1
  [ "$dry" = no ] || return 0
  awk '/^\{/ { text = "" } { text = text $0 "\n" } END { printf "%s", text }' "$log" >"$out/$1-$2.json"
  collect "$1" --unfinished
}

before=() # words in front of a command on ranks
on_ranks() { # on_ranks N COMMAND...: the words of the command, by launch/local.sh where ranks are several
  words=("${with_lib[@]}" "${@:2}")
  if [ "$1" != 1 ]; then words=(launch/local.sh -n "$1" --cores-per-rank 0 "${words[@]}"); fi
  words=("${before[@]}" "${words[@]}")
}

# run_test PART PROGRAM RANKS each|shared [ARGUMENTS...]
run_test() {
  local part=$1 test=$2 ranks=$3 whose=$4 what=$2
  if [ "$ranks" != 1 ]; then what+=", $ranks ranks"; fi
  if [ ${#before[@]} -gt 0 ]; then what+=" on one GPU"; fi
  if [ "$part $whose" = "layouts each" ]; then what+=" over NCCL"; fi
  if [ ! -x "$tests/$test" ] && [ "$dry" = no ]; then
    lacks "$part" "$what" "$tests/$test is not built"
  elif [ "$ranks" != 1 ] && [ "$mpirun" = no ] && [ "$dry" = no ]; then
    skip "$part" "$what" "there is no mpirun"
  elif [ "$whose" = each ] && [ "$ranks" -gt "$gpus" ]; then
    skip "$part" "$what" "NCCL needs a GPU for each rank, here are $gpus"
  else
    on_ranks "$ranks" "$tests/$test" "${@:5}"
    run "$part" "$what" 600 "${words[@]}"
  fi
}

each_test() { # each_test PART PATTERN: those of the list whose names match, on all their ranks
  local test ranks whose rank
  [ -s "$tests/list.txt" ] || { lacks "$1" "all tests" "$tests/list.txt is not there: build the target red_gpu_tests"; return; }
  while read -r test ranks whose; do
    [[ $test =~ $2 ]] || continue
    for rank in ${ranks//,/ }; do
      run_test "$1" "$test" "${rank/-/1}" "$whose"
    done
  done <"$tests/list.txt"
}

# What failed, how many of each verdict, and why what did not run did not.
summary() {
  sed -n 's/^\([^\t]*\)\t\([^\t]*\)\tfailed\t[^\t]*\t/failed: \1 \2: /p' "$out/records.tsv"
  echo "$done_well passed, $bad failed, $skipped skipped, $cut cut off"
  cut -f 3,5 "$out/records.tsv" | sed -n 's/^skipped\t//p' | sort | uniq -c | sort -rn | sed 's/^ *\([0-9]*\) /skipped, \1: /'
  if [ "$cut" -gt 0 ]; then echo "cut off, $cut: the $minutes minutes were over"; fi
  if [ $((done_well + bad)) = 0 ]; then echo "nothing ran"; fi
}

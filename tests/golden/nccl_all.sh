#!/usr/bin/env bash
# Golden files with ranks over what stands for NCCL on the CPU (tests/cuda_on_cpu), by hand: `ctest` has each file in few layouts. Every
# file, number of ranks from 1 to 8 and order of streams; each program takes all layouts of its ranks. Hours for all of it.
#   tests/golden/nccl_all.sh [--ranks "2 4"] [--streams "lazy random eager"] [--minutes N] [FILE...]
# FILE: a name in tests/golden, without its suffix. REDLLM_BUILD: the build folder. Ends with 1 where anything failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

ranks="1 2 3 4 5 6 7 8" streams="lazy random eager" minutes=60 files=()
while [ $# -gt 0 ]; do
  case $1 in
    --ranks | --streams | --minutes) # of one program
      [ $# -ge 2 ] || { echo "$0: $1 needs a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift
      ;;
    -*) sed -n '2,5s/^# *//p' "$0" >&2; exit 2 ;;
    *) files+=("$1") ;;
  esac
  shift
done
if [ ${#files[@]} = 0 ]; then for file in tests/golden/*.h5; do files+=("$(basename "$file" .h5)"); done; fi

programs=${REDLLM_BUILD:-build/release}/tests/golden
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
for file in "${files[@]}"; do
  [ -r "tests/golden/$file.h5" ] || { echo "$0: there is no tests/golden/$file.h5" >&2; exit 2; }
  case $file in
    *trajectory*) test=trajectory ;;
    *adafactor*) test=adafactor ;;
    *) test=step ;;
  esac
  for count in $ranks; do
    for order in $streams; do
      begin=$SECONDS outcome=ok
      REDLLM_GOLDEN_FILE=$file CUDA_ON_CPU_STREAMS=$order CUDA_ON_CPU_DEVICES=8 RED_GEMM_CACHE=off timeout "${minutes}m" \
        launch/local.sh -n "$count" --cores-per-rank 0 "$programs/golden_cuda_${test}_test" --gtest_color=no >"$log" 2>&1 || outcome="FAILED ($?)"
      printf '%-24s %s rank(s), %-7s %4d s  %s\n' "$file" "$count" "$order," $((SECONDS - begin)) "$outcome"
      if [ "$outcome" != ok ]; then
        failed=$((failed + 1))
        grep -v '^\[\|ranks exchange GPU memory' "$log" | head -n 40
      fi
    done
  done
done
echo "$failed failed"
[ "$failed" = 0 ]

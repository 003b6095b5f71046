#!/usr/bin/env bash
# Every benchmark on the CPU, each beside its peer in turns, with the bars they are held to; about an hour on two cores.
# The machine must be idle. Figures go to tests/bench/results/NAME_*.json with CPU, flags and versions.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

usage() {
  cat <<'END'
usage: tests/bench/run.sh --name NAME [--no-install] [--rounds N] [BENCHMARK...]
  --name NAME    of the machine, in the results' names
  --no-install   use the packages that are there
  --rounds N     of each comparison; figures are medians (default 3)
  BENCHMARK      training, scaling, bubble, generation, data, checkpoint (default: all)
END
}

install=yes rounds=3 name='' benchmarks=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --rounds | --name)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      if [ "$1" = --rounds ]; then rounds=$2; else name=$2; fi
      shift
      ;;
    training | scaling | bubble | generation | data | checkpoint) benchmarks+=("$1") ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $name =~ ^[A-Za-z0-9-]+$ && $rounds =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }
[ ${#benchmarks[@]} -gt 0 ] || benchmarks=(training scaling bubble generation data checkpoint)

if [ "$install" = yes ]; then
  launch/packages.sh build text bench || exit 1
  launch/python_packages.sh bench || exit 1
fi
cmake --preset release >/dev/null && cmake --build build/release --target redllm sentencepiece_alone checkpoint_speed || exit 1

# bf16 where the processor has its arithmetic: elsewhere it saves memory, not time.
dtypes=(fp32)
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then dtypes+=(bf16); fi

status=0
for benchmark in "${benchmarks[@]}"; do
  options=(--name "${name}_$benchmark")
  case $benchmark in
    training | scaling | generation) options+=(--rounds "$rounds" --dtype "${dtypes[@]}") ;;
    data | checkpoint) options+=(--rounds "$rounds") ;;
  esac
  printf '\n== %s\n' "$benchmark"
  python3 "tests/bench/$benchmark.py" "${options[@]}" || status=1
done
exit $status

#!/usr/bin/env bash
# Every benchmark on the CPU, each beside its peer in turns, with the bars they are held to; about an hour on two cores.
# The machine must be idle. Figures go to tests/bench/results/NAME_*.json with CPU, flags and versions.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

usage() {
  cat <<'END'
usage: tests/bench/run.sh --name NAME [--no-install] [--rounds N] [--max-cpu avx2] [BENCHMARK...]
  --name NAME    of the machine, in the results' names
  --no-install   use the packages that are there
  --rounds N     of each comparison; figures are medians (default 3)
  --max-cpu avx2 all programs compute as a processor with AVX2 alone would
  BENCHMARK      training, scaling, bubble, generation, data, checkpoint, conversion (default: all)
END
}

install=yes rounds=3 name='' max_cpu='' benchmarks=()
while [ $# -gt 0 ]; do
  case $1 in
    --no-install) install=no ;;
    --rounds | --name | --max-cpu)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      case $1 in
        --rounds) rounds=$2 ;;
        --name) name=$2 ;;
        --max-cpu) max_cpu=$2 ;;
      esac
      shift
      ;;
    training | scaling | bubble | generation | data | checkpoint | conversion) benchmarks+=("$1") ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $name =~ ^[A-Za-z0-9-]+$ && $rounds =~ ^[1-9][0-9]*$ && $max_cpu =~ ^(|avx2)$ ]] || { usage >&2; exit 2; }
[ ${#benchmarks[@]} -gt 0 ] || benchmarks=(training scaling bubble generation data checkpoint conversion)

if [ "$install" = yes ]; then
  launch/packages.sh build text bench || exit 1
  launch/python_packages.sh bench || exit 1
fi
cmake --preset release >/dev/null && cmake --build build/release --target redllm sentencepiece_alone checkpoint_speed || exit 1

if [ "$max_cpu" = avx2 ]; then # ours; PyTorch's own kernels, its oneDNN, its MKL
  export RED_MAX_CPU=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
fi

# bf16 where the processor has its arithmetic: elsewhere it saves memory, not time.
dtypes=(fp32)
if [ -z "$max_cpu" ] && grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then dtypes+=(bf16); fi

status=0
for benchmark in "${benchmarks[@]}"; do
  options=(--name "${name}_$benchmark")
  case $benchmark in
    training | scaling | generation) options+=(--rounds "$rounds" --dtype "${dtypes[@]}") ;;
    bubble | data | checkpoint) options+=(--rounds "$rounds") ;;
  esac
  printf '\n== %s\n' "$benchmark"
  python3 "tests/bench/$benchmark.py" "${options[@]}" || status=1
done
exit $status

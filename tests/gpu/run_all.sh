#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command: what tests/cuda_on_cpu runs on the CPU, with the real libraries, and
# how fast it is. Figures go to tests/bench/results/NAME_gpu.json with hardware and versions. See --help, docs/cuda.md.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

usage() {
  cat <<'END'
usage: tests/gpu/run_all.sh --name NAME [OPTIONS] [PART...]
parts, in the order in which they are named; by default all, in this one, so that what ends this early leaves the most:
  kernels      the tests of ops and of the device (gpu_tests in the build folder), one process each
  steps        a few training steps of the 150M and 1B models, our attention's first, then cuDNN's
  program      redllm-cuda as it is used: preflight, a run that is saved, gone on with and repeated, bit by bit, generation
  ops          redllm-cuda bench ops of the 150M models: every kernel and product beside its limits
  golden       losses, gradients, logits and whole trajectories against tests/golden
  pytorch      training steps of the 150M and 1B models, and of the 2B ones where memory suffices, in turns with PyTorch's,
               compiled, with fused attention, and the bars: 40 % MFU at 150M, 50 % from 1B on, 1.25 times PyTorch's tokens/s
  memcheck     compute-sanitizer's memcheck on the tests of all our kernels (products are cuBLASLt's)
  layouts      the golden files in every layout of 2, 4 and 8 ranks: sharing one GPU, over MPI and host memory, and where there
               are as many GPUs, over NCCL, each rank on its own
  ranks        the tests of communicators, and of whole steps over NCCL
  comm         redllm-cuda bench comm, over NCCL where there are several GPUs, and over host memory
  sanitizer    compute-sanitizer's racecheck, initcheck and synccheck
options:
  --name NAME      of the machine, in the result's name
  --minutes N      for all of this: each command gets what is left of them at most, and what does not end is cut off
  --models LIST    presets with commas between them, instead of those above, for steps, program (the first), ops and pytorch
  --rounds N       of the steps in turns with PyTorch (default 3)
  --out FOLDER     for the results, with all logs in one file, instead of tests/bench/results (or REDLLM_RESULTS)
  --build FOLDER   with redllm-cuda and gpu_tests (default build/release, or what --arch says)
  --arch LIST      of GPUs to build for, such as 90a, in build/gpu-LIST
  --no-install     install nothing: neither NVIDIA's libraries to build with nor PyTorch
  --no-build       run the programs that are there
  --lib FOLDER     shared libraries that the programs need and this machine lacks, with Open MPI in mpi/; NVIDIA's, where they are
                   not in it, are taken from the Python packages of build/python-bench or python3
  --dry-run        print what would run; needs no GPU
  --pack FILE      on the machine that builds: a tar file (.tar, .tar.gz, .tar.xz) of programs, libraries, Open MPI, scripts and
                   golden files to bring along, for a machine that cannot build; there: unpack it, then this script with
                   --no-install --no-build --lib lib
  --without-nvidia, --without-golden   leave NVIDIA's libraries, or the golden files, out of the pack
Each row goes into NAME_gpu.json as it ends; parts that are not run stay in that file as they were, with the date and the commit
that they had. CUDA_VISIBLE_DEVICES, where it is set, says which GPUs are used.
Ends with 0: all that ran is well; 1: a test failed or is not built, a bar was missed, figures could not be read, or nothing ran;
2: wrong usage, or no GPU here; 130: interrupted.
What cannot run is skipped with its reason: ranks need mpirun, each sanitizer its program, ratios a PyTorch with CUDA.
END
}

say() { echo "run_all: $*" >&2; }
fail() { say "$*"; exit 2; }

known=(kernels steps program ops golden pytorch memcheck layouts ranks comm sanitizer)
parts=() name='' build='' install=yes make=yes lib='' rounds=3 pack='' dry=no minutes='' results='' arch='' chosen_models=()
without_nvidia=no without_golden=no
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --no-install) install=no ;;
    --no-build) make=no ;;
    --dry-run) dry=yes ;;
    --without-nvidia) without_nvidia=yes ;;
    --without-golden) without_golden=yes ;;
    --name | --build | --lib | --rounds | --pack | --minutes | --models | --out | --arch)
      [ $# -ge 2 ] || fail "$1 needs a value (--help)"
      case $1 in
        --name) name=$2 ;;
        --build) build=$2 ;;
        --lib) lib=$2 ;;
        --rounds) rounds=$2 ;;
        --pack) pack=$2 ;;
        --minutes) minutes=$2 ;;
        --models) IFS=, read -r -a chosen_models <<<"$2" ;;
        --out) results=$2 ;;
        --arch) arch=$2 ;;
      esac
      shift
      ;;
    -*) fail "there is no option $1 (--help)" ;;
    *)
      [[ " ${known[*]} " == *" $1 "* ]] || fail "there is no part $1: ${known[*]}"
      parts+=("$1")
      ;;
  esac
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=("${known[@]}")
[[ $rounds =~ ^[1-9][0-9]*$ ]] || fail "--rounds $rounds: no number of rounds"
[[ $minutes =~ ^([0-9]{1,4}(\.[0-9])?)?$ ]] || fail "--minutes $minutes: no number of minutes"
[[ $arch =~ ^[0-9a-z\;]*$ ]] || fail "--arch $arch: no list of architectures, such as 90a"
for model in "${chosen_models[@]}"; do
  [ -f "configs/models/$model.ini" ] || fail "--models: there is no configs/models/$model.ini"
done
own_build=build/release
if [ -n "$arch" ]; then own_build=build/gpu-${arch//;/-}; fi
build=${build:-$own_build}
program=$build/redllm-cuda tests=$build/gpu_tests
# What is begun last must be ended, with what it started, before the time is over.
deadline=1000000000
if [ -n "$minutes" ]; then deadline=$(awk -v minutes="$minutes" 'BEGIN { printf "%d", 60 * minutes - 15 }'); fi

[ -f CMakeLists.txt ] || make=no # a pack's folder
[ "$make" = no ] || [ "$dry" = yes ] || [ "$build" = "$own_build" ] || fail "--build $build: this script builds $own_build alone; add --no-build"

build_all() { # build_all TARGET...
  if [ "$install" = yes ]; then launch/cuda_sdk.sh || return 1; fi
  cmake --preset release -B "$build" -DRED_CUDA=ON ${arch:+"-DCMAKE_CUDA_ARCHITECTURES=$arch"} >/dev/null &&
    cmake --build "$build" --target redllm-cuda red_gpu_tests "$@"
}

if [ -n "$pack" ]; then
  [[ $build != /* ]] || fail "--build $build: a pack takes a folder inside this one"
  if [ "$install" = yes ]; then launch/python_packages.sh mpi || exit 1; fi
  if [ "$make" = yes ]; then build_all redllm || exit 1; fi
  exec tests/gpu/pack.sh "$pack" "$build" "$without_nvidia" "$without_golden"
fi

[[ $name =~ ^[A-Za-z0-9-]+$ ]] || [ "$dry" = yes ] || fail "--name NAME is missing: letters, digits and dashes (--help)"
# shellcheck source=tests/gpu/machine.sh
source tests/gpu/machine.sh
# shellcheck source=tests/gpu/rows.sh
source tests/gpu/rows.sh
# shellcheck source=tests/gpu/parts.sh
source tests/gpu/parts.sh
count_gpus
find_libraries
# Which products are fastest is found once, and not in the home folder.
out=$build/gpu_run
RED_GEMM_CACHE=$(realpath -m "$out")/gemm_algorithms.txt
export RED_GEMM_CACHE REDLLM_GOLDEN_DIR=$PWD/tests/golden REDLLM_GOLDEN_STEPS=40 GTEST_COLOR=no

child='' part=''
interrupted() {
  trap '' INT TERM HUP PIPE
  say "interrupted"
  if [ -n "$child" ]; then # which hands it on to all that it started
    kill -TERM "$child" 2>/dev/null
    wait "$child"
  fi
  if [ -n "$part" ]; then collect "$part" --unfinished; fi
  exit 130
}

prepare() { # prepare: what a run needs before its first part
  local each
  python3 -c 'import sys; assert sys.version_info >= (3, 8)' 2>/dev/null || fail "python3 is missing, or older than 3.8"
  mkdir -p "$out" && : >"$out/records.tsv" && rm -f "$out/about.json" "$out/told.txt"
  for each in "${parts[@]}"; do rm -f "$out/$each.json" "$out/$each"-*; done
  if [ -n "$results" ]; then
    mkdir -p "$results" || fail "--out $results: it cannot be made"
    results=$(realpath "$results")
    export REDLLM_RESULTS=$results
    if [ ! -e "$results/${name}_gpu.json" ] && [ -e "tests/bench/results/${name}_gpu.json" ]; then
      cp "tests/bench/results/${name}_gpu.json" "$results/" # its other parts
    fi
  fi
  trap interrupted INT TERM HUP
  if [ "$make" = yes ] && ! command -v cmake >/dev/null; then
    say "there is no cmake: the programs of $build run as they are"
    make=no
  fi
  if [ "$make" = yes ]; then build_all || fail "the build failed"; fi
  [ -x "$program" ] || fail "$program is not there: build it (--help: --pack)"
  check_libraries
}

if [ "$dry" = no ]; then prepare; fi
for part in "${parts[@]}"; do
  if [ "$(left)" -lt 2 ]; then record "$part" all cut 0 "no time was left"; continue; fi
  cut_before=$cut
  "part_$part"
  [ "$dry" = no ] || continue
  if [ "$cut" = "$cut_before" ]; then collect "$part"; else collect "$part" --unfinished; fi
done
[ "$dry" = no ] || exit 0
part=''
summary
[ "$bad" = 0 ] && [ "$done_well" -gt 0 ]

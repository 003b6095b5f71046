#!/usr/bin/env bash
# Everything that only a GPU can tell, in one command: what tests/cuda_on_cpu runs on the CPU, with the real libraries, and
# how fast it is. Figures go to tests/bench/results/NAME_gpu.json with hardware and versions. See --help, docs/cuda.md.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1

usage() {
  cat <<'END'
usage: tests/gpu/run_all.sh --name NAME [OPTIONS] [PART...]
parts, in this order; all of them by default:
  conformance  the tests of ops, device and communicators (gpu_tests in the build folder), one process each
  golden       losses, gradients, logits and whole trajectories against tests/golden
  layouts      the same in every layout of 2, 4 and 8 ranks: sharing one GPU, over MPI and host memory, and where there are as
               many GPUs, over NCCL, each rank on its own
  sanitizer    compute-sanitizer's memcheck, racecheck, initcheck and synccheck on the tests of all our kernels (products are
               cuBLASLt's)
  ops          redllm-cuda bench ops of the 150M models: every kernel and product beside its limits
  comm         redllm-cuda bench comm, over NCCL where there are several GPUs, and over host memory
  steps        training steps of the 150M and 1B models, and of the 2B ones where memory suffices, in turns with PyTorch's,
               compiled, with fused attention, and the bars: 40 % MFU at 150M, 50 % from 1B on, 1.25 times PyTorch's tokens/s
options:
  --name NAME      of the machine, in the result's name
  --build FOLDER   with redllm-cuda and gpu_tests (default build/release)
  --no-install     install nothing: neither NVIDIA's libraries to build with nor PyTorch
  --no-build       run the programs that are there
  --lib FOLDER     shared libraries that the programs need and this machine lacks; openmpi/ in it has Open MPI's plug-ins
  --rounds N       of the steps in turns with PyTorch (default 3)
  --pack FILE      on the machine that builds: a tar file of programs, libraries, scripts and golden files to bring along, for
                   a machine that cannot build; there: tar xf FILE, then this script with --no-build --lib lib
  --dry-run        print what would run; needs no GPU
Each part goes into tests/bench/results/NAME_gpu.json when it is through, or interrupted; parts that are not run stay in that file
as they were, with the date and the commit that they had. CUDA_VISIBLE_DEVICES, where it is set, says which GPUs are used.
Ends with 0: all that ran is well; 1: a test failed, a bar was missed or figures could not be read; 2: wrong usage, or no GPU
here; 130: interrupted.
What cannot run is skipped with its reason: ranks need mpirun, each sanitizer its program, steps a PyTorch with CUDA.
END
}

say() { echo "run_all: $*" >&2; }
fail() { say "$*"; exit 2; }

known=(conformance golden layouts sanitizer ops comm steps)
parts=() name='' build=build/release install=yes make=yes lib='' rounds=3 pack='' dry=no
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) usage; exit 0 ;;
    --no-install) install=no ;;
    --no-build) make=no ;;
    --dry-run) dry=yes ;;
    --name | --build | --lib | --rounds | --pack)
      [ $# -ge 2 ] || fail "$1 needs a value (--help)"
      case $1 in
        --name) name=$2 ;;
        --build) build=$2 ;;
        --lib) lib=$2 ;;
        --rounds) rounds=$2 ;;
        --pack) pack=$2 ;;
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
program=$build/redllm-cuda tests=$build/gpu_tests

[ -f CMakeLists.txt ] || make=no # a pack's folder
[ "$make" = no ] || [ "$dry" = yes ] || [ "$build" = build/release ] || fail "--build $build: this script builds build/release alone; add --no-build"

build_all() {
  if [ "$install" = yes ]; then launch/cuda_sdk.sh || return 1; fi
  cmake --preset release -DRED_CUDA=ON >/dev/null && cmake --build build/release --target redllm-cuda red_gpu_tests
}

if [ -n "$pack" ]; then
  [[ $build != /* ]] || fail "--build $build: a pack takes a folder inside this one"
  if [ "$make" = yes ]; then build_all || exit 1; fi
  exec tests/gpu/pack.sh "$pack" "$build"
fi

[[ $name =~ ^[A-Za-z0-9-]+$ ]] || [ "$dry" = yes ] || fail "--name NAME is missing: letters, digits and dashes (--help)"
listed=$(nvidia-smi -L 2>/dev/null)
gpus=$(grep -c '^GPU ' <<<"$listed")
if [ "$gpus" = 0 ] && [ "$dry" = no ]; then
  fail "no GPU answers here (nvidia-smi -L lists none). The same tests run without one over fakes: ctest --preset release -L cuda; --dry-run prints what would run"
fi
# What CUDA shows of them: those named, up to the first that names none; of instances of divided GPUs the first alone,
# where none is named.
first_gpu=0
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
  named=${CUDA_VISIBLE_DEVICES//[[:space:]]/} gpus=0
  IFS=, read -r -a named <<<"$named"
  for gpu in "${named[@]}"; do
    [[ -n $gpu && $gpu != -* && $gpu != NoDevFiles ]] || break
    gpus=$((gpus + 1))
  done
  first_gpu=${named[0]:-}
  [[ $first_gpu != MIG-* ]] || gpus=1 # of those CUDA shows the first alone
  [ "$gpus" -gt 0 ] || [ "$dry" = yes ] || fail "CUDA_VISIBLE_DEVICES='$CUDA_VISIBLE_DEVICES' hides every GPU"
elif grep -q '^ *MIG ' <<<"$listed"; then
  gpus=1
fi
[ "$dry" = no ] || gpus=2 # whatever is here

with_lib=() # for our programs alone: this machine's own have their own libraries
if [ -n "$lib" ]; then
  lib=$(realpath -m "$lib")
  with_lib=(env "LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
  if [ -d "$lib/openmpi" ]; then with_lib+=("OMPI_MCA_mca_base_component_path=$lib/openmpi"); fi
fi
mpirun=yes
if [[ $(mpirun --version 2>/dev/null) != *"Open MPI"* ]]; then
  mpirun=no
  export OMPI_MCA_ess_singleton_isolated=1 # a process alone starts no daemon of Open MPI, which is not there
fi
# Which products are fastest is found once, and not in the home folder.
out=$build/gpu_run
RED_GEMM_CACHE=$(realpath -m "$out")/gemm_algorithms.txt
export RED_GEMM_CACHE REDLLM_GOLDEN_DIR=$PWD/tests/golden REDLLM_GOLDEN_STEPS=40

bad=0 done_well=0 skipped=0
record() { # record PART NAME ok|failed|skipped SECONDS DETAIL
  if [ "$dry" = no ]; then printf '%s\t%s\t%s\t%s\t%s\n' "$@" >>"$out/records.tsv"; fi
  case $3 in
    ok) done_well=$((done_well + 1)) ;;
    failed) bad=$((bad + 1)) ;;
    skipped) skipped=$((skipped + 1)) ;;
  esac
  printf '%-8s %-12s %-50s %5s s  %s\n' "$3" "$1" "$2" "$4" "$5"
}
skip() { record "$1" "$2" skipped 0 "$3"; } # skip PART NAME REASON

# run PART NAME LIMIT_S COMMAND...: its output goes to a log, whose end is shown where it fails. Where `must_say` is set, a
# command whose output has no such words has done something else than it was to, and failed.
must_say=''
run() {
  local part=$1 what=$2 limit=$3 log=$out/$1-${2//[^A-Za-z0-9_.-]/_}.log begin=$SECONDS code
  shift 3
  if [ "$dry" = yes ]; then
    printf '%s %s:' "$part" "$what"
    printf ' %q' "$@"
    printf '\n'
    return
  fi
  timeout "$limit" "$@" >"$log" 2>"$log.err" </dev/null &
  child=$!
  wait "$child" # which a signal interrupts, and a command in the foreground would not be
  code=$?
  child=''
  if [ "$code" = 0 ] && [ -n "$must_say" ] && ! grep -qF "$must_say" "$log" "$log.err"; then
    tail -n 30 "$log" "$log.err" >&2
    record "$part" "$what" failed $((SECONDS - begin)) "it did not say '$must_say', see $log"
    return 1
  fi
  if [ "$code" = 0 ]; then
    record "$part" "$what" ok $((SECONDS - begin)) "$(grep -o '^\[  PASSED  \] .*' "$log" | tail -n 1)"
    return
  fi
  if [ "$code" = 124 ]; then code="124, which is no end within $limit s"; fi
  tail -n 30 "$log" "$log.err" >&2
  record "$part" "$what" failed $((SECONDS - begin)) "ended with $code, see $log"
  return 1
}

# measure PART NAME COMMAND...: the same for a benchmark, whose last line is JSON for the results.
measure() {
  local log=$out/$1-$2.log
  run "$1" "$2" 1800 "${@:3}" || return 0
  [ "$dry" = yes ] || tail -n 1 "$log" >"$out/$1-$2.json"
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
    skip "$part" "$what" "$tests/$test is not built"
  elif [ "$ranks" != 1 ] && [ "$mpirun" = no ] && [ "$dry" = no ]; then
    skip "$part" "$what" "there is no mpirun"
  elif [ "$whose" = each ] && [ "$ranks" -gt "$gpus" ]; then
    skip "$part" "$what" "NCCL needs a GPU for each rank, here are $gpus"
  else
    on_ranks "$ranks" "$tests/$test" "${@:5}"
    run "$part" "$what" 1800 "${words[@]}"
  fi
}

each_test() { # each_test PART PATTERN: those of the list whose names match, on all their ranks
  local test ranks whose rank
  [ -s "$tests/list.txt" ] || { skip "$1" "all tests" "$tests/list.txt is not there: build the target red_gpu_tests"; return; }
  while read -r test ranks whose; do
    [[ $test =~ $2 ]] || continue
    for rank in ${ranks//,/ }; do
      run_test "$1" "$test" "${rank/-/1}" "$whose"
    done
  done <"$tests/list.txt"
}

part_conformance() { each_test conformance '^(ops|device|parallel|train)_'; }
part_golden() { each_test golden '^golden_'; }

# Ranks that see one GPU share it, and exchange its memory through the host's; those that see as many as they are have one each.
part_layouts() {
  local test ranks before
  for test in golden_cuda_step_gpu_test golden_cuda_adafactor_gpu_test; do
    for ranks in 2 4 8; do
      before=(env "CUDA_VISIBLE_DEVICES=$first_gpu")
      must_say='ranks exchange GPU memory over MPI, through host memory'
      run_test layouts "$test" "$ranks" shared
      before=()
      must_say='ranks exchange GPU memory over NCCL'
      run_test layouts "$test" "$ranks" each
      must_say=''
    done
  done
}

# Tests of ops whose kernels are ours, from the list of all: products are cuBLASLt's, whose insides are not ours to check.
tests_of_kernels() {
  local test rest
  while read -r test rest; do
    if [[ $test =~ ^ops_cuda_ && ! $test =~ ^ops_cuda_matmul_(gpu|library|repeats) ]]; then echo "$test"; fi
  done <"$tests/list.txt"
}

part_sanitizer() {
  local tool test
  if ! command -v compute-sanitizer >/dev/null && [ "$dry" = no ]; then
    skip sanitizer "all tools" "there is no compute-sanitizer (it comes with the CUDA toolkit)"
    return
  fi
  for tool in memcheck racecheck initcheck synccheck; do
    for test in $(tests_of_kernels); do
      if [ ! -x "$tests/$test" ] && [ "$dry" = no ]; then skip sanitizer "$tool $test" "it is not built"; continue; fi
      run sanitizer "$tool $test" 1800 "${with_lib[@]}" compute-sanitizer --tool "$tool" --error-exitcode 9 "$tests/$test" \
        --gtest_filter='-*.ThreadsDoNotChangeABit:*.ScratchMemoryIsAsPlanned'
    done
  done
}

part_ops() {
  local kind
  for kind in red dec; do
    measure ops "${kind}_150m" "${with_lib[@]}" "$program" bench ops --device cuda --config "configs/models/${kind}_150m.ini" --data.window=2048 \
      --train.micro_batch=16 --train.precision=bf16 --json
  done
}

comm_on() { # comm_on NAME RANKS OPTIONS...
  on_ranks "$2" "$program" bench comm --device cuda --config configs/models/red_150m.ini --train.precision=bf16 --to-mib 256 --json \
    "${@:3}"
  measure comm "$1" "${words[@]}"
}

part_comm() {
  local axes=(--parallel.data=2 --parallel.tensor=2 --parallel.encoder_stages=1)
  if [ "$mpirun" = no ] && [ "$dry" = no ]; then
    skip comm "all" "there is no mpirun"
    return
  fi
  # All GPUs on the data axis; then every axis, as far as the GPUs suffice; then two and eight ranks that share what is there.
  if [ "$gpus" -gt 1 ] || [ "$dry" = yes ]; then
    comm_on nccl "$gpus" --parallel.data="$gpus" --parallel.transport=nccl
    if [ "$gpus" -ge 8 ]; then
      comm_on nccl_axes 8 "${axes[@]}" --parallel.transport=nccl
    elif [ "$gpus" -ge 4 ]; then
      comm_on nccl_axes 4 --parallel.tensor=2 --parallel.encoder_stages=1 --parallel.transport=nccl
    else
      comm_on nccl_tensor 2 --parallel.tensor=2 --parallel.transport=nccl
      comm_on nccl_pipeline 2 --parallel.encoder_stages=1 --parallel.transport=nccl
    fi
  else
    skip comm nccl "there is one GPU"
  fi
  comm_on staged 2 --parallel.data=2 --parallel.transport=staged
  comm_on staged_axes 8 "${axes[@]}" --parallel.transport=staged
}

part_steps() {
  local python=build/python-bench/bin/python3
  if [ "$dry" = no ]; then
    if [ "$install" = yes ]; then launch/python_packages.sh bench || say "PyTorch cannot be had"; fi
    [ -x "$python" ] || python=python3
    if ! "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
      skip steps PyTorch "$python has no PyTorch that sees the GPU: redllm's steps run alone"
    fi
  fi
  run steps "beside PyTorch" 10800 "$python" tests/bench/gpu_training.py --program "$program" --lib "$lib" --rounds "$rounds" \
    --out "$out/steps.json"
  [ "$dry" = yes ] || sed -n '/^|/p; /^bar/p; /^left out/p' "$out/steps-beside_PyTorch.log"
}

# Into the results, what there is of a part.
collect() { # collect PART [--interrupted]
  python3 tests/gpu/results.py --name "${name}_gpu" --part "$@" --run "$out" --program "$program" --lib "$lib" || bad=$((bad + 1))
}

child='' part=''
interrupted() {
  trap '' INT TERM HUP PIPE
  say "interrupted"
  if [ -n "$child" ]; then # which hands it on to all that it started
    kill -TERM "$child" 2>/dev/null
    wait "$child"
  fi
  if [ -n "$part" ]; then collect "$part" --interrupted; fi
  exit 130
}

if [ "$dry" = no ]; then
  python3 -c 'import sys; assert sys.version_info >= (3, 8)' 2>/dev/null || fail "python3 is missing, or older than 3.8"
  mkdir -p "$out" && : >"$out/records.tsv"
  for part in "${parts[@]}"; do rm -f "$out/$part.json" "$out/$part"-*; done
  part=''
  trap interrupted INT TERM HUP
  if [ "$make" = yes ] && ! command -v cmake >/dev/null; then
    say "there is no cmake: the programs of $build run as they are"
    make=no
  fi
  if [ "$make" = yes ]; then build_all || fail "the build failed"; fi
  [ -x "$program" ] || fail "$program is not there: build it (--help: --pack)"
fi
for part in "${known[@]}"; do
  [[ " ${parts[*]} " == *" $part "* ]] || continue
  "part_$part"
  if [ "$dry" = no ]; then collect "$part"; fi
done
[ "$dry" = no ] || exit 0
echo "$done_well passed, $bad failed, $skipped skipped"
[ "$bad" = 0 ]

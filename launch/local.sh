#!/usr/bin/env bash
# Runs a program on N MPI ranks of this machine: launch/local.sh -n N PROGRAM ARGS...
# Sets what mpirun gets wrong on small machines: oversubscription, binding of two threads to one core, busy waiting of
# ranks that share a core, and its refusal to run as root in a container.
set -euo pipefail

usage() {
  echo "usage: launch/local.sh -n RANKS PROGRAM [ARGUMENTS...]" >&2
  exit 2
}

if [ "${1:-}" != -n ] || [ $# -lt 3 ]; then usage; fi
ranks=$2
shift 2
[[ $ranks =~ ^[1-9][0-9]*$ ]] || usage
if ! command -v "$1" >/dev/null; then # mpirun --quiet would say nothing
  echo "launch/local.sh: there is no program $1" >&2
  exit 2
fi

# shellcheck source=launch/open_mpi.sh
source "$(dirname "${BASH_SOURCE[0]}")/open_mpi.sh"
options=(--oversubscribe --bind-to none "${open_mpi_quiet[@]}" "${open_mpi_root[@]}")
if [ "$open_mpi_shm" = vader ]; then # process_vm_readv is refused in many containers
  options+=(--mca btl_vader_single_copy_mechanism none)
else
  options+=(--mca smsc ^cma)
fi
options+=(--mca btl "self,$open_mpi_shm")
options+=(--mca pml_ob1_send_pipeline_depth 16) # more of a long message moves with each poll
if [ "$ranks" -gt "$(nproc)" ]; then options+=(--mca mpi_yield_when_idle 1); fi
exec mpirun -n "$ranks" "${options[@]}" "$@"

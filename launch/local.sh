#!/usr/bin/env bash
# Runs a program on N MPI ranks of this machine: launch/local.sh -n N PROGRAM ARGS...
# Sets what mpirun gets wrong on small machines: oversubscription, binding of two threads to one core, busy waiting of
# ranks that share a core, and its refusal to run as root in a container.
set -euo pipefail

usage() {
  cat >&2 <<'END'
usage: launch/local.sh -n RANKS [OPTIONS] PROGRAM [ARGUMENTS...]
  --cores-per-rank N    cores that each rank is bound to; 0: ranks are not bound (default: an equal share of the machine's;
                        not for redllm-cuda, nor another program with cuda in its name, whose ranks bind
                        themselves near their GPUs, nor where ranks or --train.threads are too many or this
                        shell may use only some of the machine's cores)
  --dry-run             prints how ranks are bound and the command; starts nothing
END
  exit 2
}
fail() {
  echo "launch/local.sh: $*" >&2
  exit 2
}

ranks='' cores_per_rank='' dry=no
while [ $# -gt 0 ]; do
  case $1 in
    -n) ranks=${2:-} ;;
    --cores-per-rank) cores_per_rank=${2:-none} ;;
    --dry-run) dry=yes ;;
    -*) usage ;;
    *) break ;;
  esac
  if [ "$1" = --dry-run ]; then shift; else shift 2 || usage; fi
done
[[ $ranks =~ ^[1-9][0-9]{0,5}$ && $cores_per_rank =~ ^(0|[1-9][0-9]{0,3})?$ && $# -ge 1 ]] || usage
command -v "$1" >/dev/null || fail "there is no program $1" # mpirun --quiet would say nothing

# shellcheck source=launch/open_mpi.sh
source "$(dirname "${BASH_SOURCE[0]}")/open_mpi.sh"
# shellcheck source=launch/binding.sh
source "$(dirname "${BASH_SOURCE[0]}")/binding.sh"
read -r cores cpus numa_nodes <<<"$(machine_of)"
unbound_because='--cores-per-rank 0'
if [ -z "$cores_per_rank" ]; then
  cores_per_rank=0
  if [[ ${1##*/} == *cuda* ]]; then
    unbound_because='ranks bind themselves to the cores near their GPUs'
  elif [ "$(own_cpus)" -lt "$cpus" ]; then # mpirun would take any
    unbound_because="this shell may run on $(own_cpus) of the machine's $cpus CPUs"
  else
    share_cores "$ranks" "$cores" "$cpus" "$(threads_asked "$@")"
  fi
elif [ $((cores_per_rank * ranks)) -gt "$cores" ]; then
  fail "--cores-per-rank $cores_per_rank, but $ranks ranks share $cores cores"
fi

options=(--oversubscribe "${open_mpi_quiet[@]}" "${open_mpi_root[@]}") # however few slots a scheduler's job has
if [ "$cores_per_rank" -gt 0 ]; then
  binding="each rank is bound to $cores_per_rank of $cores cores"
  options+=(--map-by "$(bound_map "$ranks" "$numa_nodes" slot)" --bind-to core)
else
  binding="ranks are not bound: $unbound_because"
  options+=(--bind-to none)
fi
if [ "$open_mpi_shm" = vader ]; then # process_vm_readv is refused in many containers
  options+=(--mca btl_vader_single_copy_mechanism none)
else
  options+=(--mca smsc ^cma)
fi
options+=(--mca btl "self,$open_mpi_shm")
options+=(--mca pml_ob1_send_pipeline_depth 16) # more of a long message moves with each poll
if [ "$ranks" -gt "$(own_cpus)" ]; then options+=(--mca mpi_yield_when_idle 1); fi
command=(mpirun -n "$ranks" "${options[@]}" "$@")
if [ "$dry" = yes ]; then
  echo "binding: $binding"
  printf 'command:'
  printf ' %q' "${command[@]}"
  printf '\n'
  exit 0
fi
exec "${command[@]}"

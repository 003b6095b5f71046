# How many cores each rank of a program on the CPU is bound to, for scripts that source this: an equal share of its machine's whole
# cores, so that no two ranks share one and, where ranks divide by NUMA nodes, each has its memory near. Ranks on GPUs bind
# themselves to what is near theirs (docs/cuda.md).
# shellcheck shell=bash disable=SC2034 # the script that sources this reads its variables

# "CORES CPUS NODES": of this machine, where a core with two hardware threads is two CPUs; NODES: those of NUMA, 1 where some have
# no cores, whose numbers Open MPI counts too, or more than others.
machine_of() {
  local cpus cores sizes nodes=1
  cpus=$(getconf _NPROCESSORS_ONLN)
  cores=$(lscpu -p=core,socket 2>/dev/null | grep -v '^#' | sort -u | wc -l)
  if [ "$cores" = 0 ]; then cores=$cpus; fi
  sizes=$(lscpu -p=node,core,socket 2>/dev/null | grep '^[0-9]' | sort -u | cut -d , -f 1 | sort | uniq -c | awk '{ print $1 }')
  # Ranks are mapped as if all nodes had equally many cores.
  if [ "$(sort -u <<<"$sizes" | wc -l)" = 1 ]; then nodes=$(wc -l <<<"$sizes"); fi
  if [ "$(find "${RED_SYSFS:-/sys}/devices/system/node" -maxdepth 1 -name 'node[0-9]*' 2>/dev/null | wc -l)" != "$nodes" ]; then nodes=1; fi
  echo "$cores" "$cpus" "$nodes"
}

# CPUs that this shell may run on: fewer than the machine's under taskset, or in a container that was given some.
own_cpus() { env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc; }

# What --train.threads says among the words of a command; 0: nothing, or a rank's share.
threads_asked() { # threads_asked WORD...
  local threads=0
  while [ $# -gt 0 ]; do
    case $1 in
      --train.threads=*) threads=${1#*=} ;;
      --train.threads) threads=${2:-0} ;;
    esac
    shift
  done
  [[ $threads =~ ^[0-9]{1,6}$ ]] || threads=0 # which the program complains of
  echo "$threads"
}

# Sets `cores_per_rank`, 0: ranks are not bound, and then `unbound_because`.
share_cores() { # share_cores RANKS CORES CPUS THREADS: ranks on a machine of so many
  cores_per_rank=$(($2 / $1)) unbound_because=''
  if [ "$cores_per_rank" = 0 ]; then
    unbound_because="$2 cores for $1 rank(s)"
  elif [ "$4" -gt $((cores_per_rank * $3 / $2)) ]; then
    cores_per_rank=0 unbound_because="$1 rank(s) x $4 threads (train.threads), $3 CPUs"
  fi
}

# What mpirun takes for ranks that are bound: on NUMA nodes in equal parts, where RANKS divide by them, else as OTHERWISE maps.
bound_map() { # bound_map RANKS NODES OTHERWISE
  if [ "$2" -gt 1 ] && [ $(($1 % $2)) = 0 ]; then echo "ppr:$(($1 / $2)):numa:PE=$cores_per_rank"; else echo "$3:PE=$cores_per_rank"; fi
}

#!/usr/bin/env bash
# Runs a program on MPI ranks of several machines without a scheduler: launch/hosts.sh --hosts a,b:4 PROGRAM ARGUMENTS...
# The counterpart of launch/local.sh; --help tells the options. Before it starts anything it looks whether every machine can
# be reached and has the same program, Open MPI and folder, and ends with 9, as `redllm preflight` does, where one has not.
set -uo pipefail
# shellcheck source=launch/open_mpi.sh
source "$(dirname "${BASH_SOURCE[0]}")/open_mpi.sh"
# shellcheck source=launch/binding.sh
source "$(dirname "${BASH_SOURCE[0]}")/binding.sh"

usage() {
  cat <<'END_OF_USAGE'
usage: launch/hosts.sh --hosts HOST[:RANKS],... [OPTIONS] PROGRAM [ARGUMENTS...]
       launch/hosts.sh --hostfile FILE [OPTIONS] PROGRAM [ARGUMENTS...]
  --hosts LIST          machines in the order of ranks, each with its number of ranks
  --hostfile FILE       the same, a line each: HOST [slots=RANKS]; # begins a comment
  --ranks-per-host N    ranks of a machine whose number is not given (default 1)
  --cores-per-rank N    cores that each rank is bound to; 0: ranks are not bound
                        (default: the cores of the machine that has the fewest for each of its ranks; 0 where
                        --train.threads is more than that)
  --interfaces LIST     networks to use, names or subnets: eth0,ib0 or 10.1.0.0/16 (default: Open MPI's choice)
  --agent COMMAND       starts a command on a machine: COMMAND HOST WORDS... (default: ssh -x -o BatchMode=yes
                        -o ConnectTimeout=10)
  --forward NAME        a variable of the environment that ranks get; NCCL_*, UCX_*, CUDA_*, OMP_*, OMPI_MCA_* and
                        LD_LIBRARY_PATH they get anyway. May be given several times
  --mpirun WORDS        further options of mpirun
  --preflight           before `PROGRAM train`: tries the machines by `PROGRAM preflight` with the same options
  --preflight-options WORDS   further options of it, such as --slower-by=0.2
  --timeout SECONDS     for a machine to answer (default 20)
  --dry-run             prints variables and commands; reaches for no machine and starts nothing
Run from the folder that all machines share. Ends with the program's code; 2: wrong usage; 9: a machine is not fit, with the
reason; 75: asked to stop before anything was started.
With restarts and signals that save: launch/supervise.sh --max-restarts 3 --run-dir RUN -- launch/hosts.sh ...
END_OF_USAGE
}

say() { echo "hosts: $*" >&2; }
fail() { say "$*"; exit 2; }
is_count() { [[ $1 =~ ^[1-9][0-9]{0,5}$ ]]; }

hosts=() ranks_of=()
add_host() { # add_host PLACE NAME RANKS
  [[ $2 =~ ^[A-Za-z0-9][A-Za-z0-9._-]*$ ]] || fail "$1: '$2' is no name or IPv4 address of a machine"
  [ -z "$3" ] || is_count "$3" || fail "$1: '$3' is no number of ranks"
  local known
  for known in "${hosts[@]}"; do [ "$known" != "$2" ] || fail "$1: $2 is named twice; give it all its ranks at once"; done
  hosts+=("$2") ranks_of+=("$3")
}

read_list() { # read_list LIST
  local words word
  IFS=, read -ra words <<<"$1"
  for word in "${words[@]}"; do
    case $word in
      *:*) add_host "--hosts $1" "${word%%:*}" "${word#*:}" ;;
      *) add_host "--hosts $1" "$word" '' ;;
    esac
  done
}

read_file() { # read_file FILE
  local line number=0 name slots more
  [ -r "$1" ] || fail "--hostfile $1: cannot be read"
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    read -r name slots more <<<"${line%%#*}"
    [ -n "${name:-}" ] || continue
    [[ -z ${more:-} && ${slots:-slots=1} == slots=* ]] || fail "$1:$number: '$line': a line is HOST [slots=RANKS]"
    add_host "$1:$number" "$name" "${slots#slots=}"
  done <"$1"
}

ranks_per_host=1 cores_per_rank='' interfaces='' agent='ssh -x -o BatchMode=yes -o ConnectTimeout=10' timeout=20
forward=() mpirun_words=() preflight_words=() preflight=no dry=no
while [ $# -gt 0 ]; do
  case $1 in
    --preflight) preflight=yes ;;
    --dry-run) dry=yes ;;
    --help | -h) usage; exit 0 ;;
    --hosts | --hostfile | --ranks-per-host | --cores-per-rank | --interfaces | --agent | --forward | --mpirun | --timeout | --preflight-options)
      [ $# -ge 2 ] || fail "$1 needs a value (--help)"
      case $1 in
        --hosts) read_list "$2" ;;
        --hostfile) read_file "$2" ;;
        --ranks-per-host) ranks_per_host=$2 ;;
        --cores-per-rank) cores_per_rank=$2 ;;
        --interfaces) interfaces=$2 ;;
        --agent) agent=$2 ;;
        --forward) forward+=("$2") ;;
        --mpirun) read -ra mpirun_words <<<"$2" ;;
        --timeout) timeout=$2 ;;
        --preflight-options) read -ra preflight_words <<<"$2" ;;
      esac
      shift
      ;;
    --) shift; break ;;
    -*) fail "there is no option $1 (--help)" ;;
    *) break ;;
  esac
  shift
done
[ ${#hosts[@]} -gt 0 ] || fail "no machine is given: --hosts a,b:4 or --hostfile FILE (--help)"
[ $# -gt 0 ] || fail "no program is given (--help)"
is_count "$ranks_per_host" || fail "--ranks-per-host $ranks_per_host: no number of ranks"
is_count "$timeout" || fail "--timeout $timeout: no number of seconds"
[[ $cores_per_rank =~ ^[0-9]{0,4}$ ]] || fail "--cores-per-rank $cores_per_rank: no number of cores"
[[ $agent != *:* ]] || fail "--agent $agent: Open MPI takes a colon for the end of a command; put it into a script"
program=$(type -P "$1") || fail "there is no program $1"
num_ranks=0
for i in "${!hosts[@]}"; do
  ranks_of[i]=${ranks_of[i]:-$ranks_per_host}
  num_ranks=$((num_ranks + ranks_of[i]))
done

show() { # show NAME WORD...: as a shell would take them
  printf '%s:' "$1"
  printf ' %q' "${@:2}"
  printf '\n'
}

# What a machine says of itself: lines that begin with @, whatever else its shell prints.
# shellcheck disable=SC2016 # for the shell over there
probe='cd "$1" 2>/dev/null || { echo "@ folder none"; exit 0; }
if [ -e "$2" ]; then echo "@ folder same"; else echo "@ folder other"; fi
file=$(type -P "$3") && echo "@ program $(sha256sum <"$file" | cut -d " " -f 1)"
echo "@ mpi $({ "$5" --version || mpirun --version; } 2>/dev/null | head -n 1)"
if command -v "$4" >/dev/null || [ -x "${5%/*}/$4" ]; then echo "@ daemon yes"; fi
cores=$(lscpu -p=core,socket 2>/dev/null | grep -v "^#" | sort -u | wc -l); own=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)
echo "@ cores $((cores > 0 && cores < own ? cores : own))"
exit 0'

is_here() { # is_here HOST: mpirun needs no agent for it
  local own
  for own in localhost "$(hostname)" "$(hostname -s)" $(hostname -I 2>/dev/null); do [ "$1" != "$own" ] || return 0; done
  [[ $1 == 127.* ]]
}

ask() { # ask HOST FILE: its answer into FILE, complaints into FILE.error
  local words
  printf -v words ' %q' "$PWD" "$mark" "$program_word" "$open_mpi_daemon" "$mpirun"
  if is_here "$1"; then
    timeout "$timeout" bash -c "bash -s --$words" <<<"$probe" >"$2" 2>"$2.error"
  else
    # shellcheck disable=SC2086 # an agent has several words
    timeout "$timeout" $agent "$1" "bash -s --$words" <<<"$probe" >"$2" 2>"$2.error"
  fi
  echo $? >"$2.code"
}

answer() { sed -n "s/^@ $2 //p" "$1"; } # answer FILE KEY

complain() { # complain HOST TEXT
  say "$1: $2"
  unfit=yes
}

judge() { # judge HOST FILE RANKS: what is wrong with it; lowers `fewest`
  local code folder cores last
  code=$(cat "$2.code")
  if [ "$code" != 0 ] || ! grep -q '^@' "$2"; then
    last=$(tail -n 1 "$2.error")
    if [ "$code" = 124 ]; then last="no answer in $timeout s (--timeout)"; fi
    complain "$1" "cannot be reached by \`$agent $1\`, which ended with $code: ${last:-it said nothing}"
    return
  fi
  folder=$(answer "$2" folder)
  case $folder in
    none) complain "$1" "has no folder $PWD: start from one that all machines share"; return ;;
    other) complain "$1" "has another folder $PWD than this machine: the run's files must be on a file system that all share" ;;
  esac
  case $(answer "$2" program) in
    "$own_program") ;;
    '') complain "$1" "has no program $program_word" ;;
    *) complain "$1" "has another program $program_word (SHA-256 $(answer "$2" program), here $own_program)" ;;
  esac
  [ "$(answer "$2" mpi)" = "$own_mpi" ] || complain "$1" "has '$(answer "$2" mpi)', here it is '$own_mpi'"
  [ -n "$(answer "$2" daemon)" ] ||
    complain "$1" "finds no $open_mpi_daemon of Open MPI in the PATH of a shell that nobody logs in to, nor beside $mpirun"
  cores=$(($(answer "$2" cores) / $3))
  if [ "$cores" -lt "$fewest" ]; then fewest=$cores; fi
}

check_hosts() {
  local i pids=()
  scratch=$(mktemp -d)
  mark=$(mktemp "$PWD/.redllm-hosts-XXXXXX") || fail "cannot write into $PWD, which the machines are to share"
  for i in "${!hosts[@]}"; do
    ask "${hosts[i]}" "$scratch/$i" &
    pids+=($!)
  done
  wait "${pids[@]}"
  for i in "${!hosts[@]}"; do judge "${hosts[i]}" "$scratch/$i" "${ranks_of[i]}"; done
  clean_up
  if [ "$unfit" = yes ]; then exit 9; fi
  say "${#hosts[@]} machine(s) answer and have the same program, folder and $own_mpi"
}

scratch='' mark=''
clean_up() {
  [ -z "$mark" ] || rm -f "$mark"
  [ -z "$scratch" ] || rm -rf "$scratch"
  scratch='' mark=''
}

mpirun=$(type -P mpirun) program_word=$1
own_mpi=$(mpirun --version | head -n 1) own_program=$(sha256sum <"$program" | cut -d ' ' -f 1)
unfit=no fewest=1000000
if [ "$dry" = yes ]; then
  read -r cores _ <<<"$(machine_of)"
  for i in "${!hosts[@]}"; do
    if [ $((cores / ranks_of[i])) -lt "$fewest" ]; then fewest=$((cores / ranks_of[i])); fi
  done
  [ -n "$cores_per_rank" ] || say "cores of a rank: as if every machine had the $cores of this one"
else
  trap clean_up EXIT
  trap 'exit 75' TERM INT USR1 # nothing is started yet
  check_hosts
fi
unbound_because='--cores-per-rank 0'
if [ -z "$cores_per_rank" ]; then # CPUs as if every machine's cores had as many as this one's
  read -r cores cpus _ <<<"$(machine_of)"
  share_cores 1 "$fewest" $((fewest * cpus / cores)) "$(threads_asked "$@")"
  [ "$fewest" -gt 0 ] || unbound_because='more ranks than cores'
fi
if [ "$cores_per_rank" -gt "$fewest" ]; then
  say "--cores-per-rank $cores_per_rank, but a machine has only $fewest cores for each of its ranks"
  exit 9
fi

[ -z "$interfaces" ] || open_mpi_use_interfaces "$interfaces"
[[ -z $interfaces || $interfaces == */* ]] || export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-$interfaces}
open_mpi_use_agent "$agent"
export OMPI_MCA_pml_ob1_send_pipeline_depth=${OMPI_MCA_pml_ob1_send_pipeline_depth:-16} # more of a long message moves with each poll
if [ "$fewest" = 0 ]; then export OMPI_MCA_mpi_yield_when_idle=1; fi # ranks share cores
for name in $(compgen -e | grep -E '^(OMPI_MCA|PRTE_MCA|PMIX_MCA|NCCL|UCX|CUDA)_'); do echo "hosts: $name=${!name}"; done

list=''
for i in "${!hosts[@]}"; do list+=${list:+,}${hosts[i]}:${ranks_of[i]}; done
# With its path, mpirun starts the daemons from the same one; a system's own needs none.
if [[ $mpirun == /usr/bin/* ]]; then mpirun=mpirun; fi
launcher=("$mpirun" -n "$num_ranks" --host "$list" "${open_mpi_quiet[@]}" "${open_mpi_root[@]}")
if [ "$cores_per_rank" -gt 0 ]; then
  launcher+=(--map-by "slot:PE=$cores_per_rank" --bind-to core)
else
  say "ranks are not bound: $unbound_because"
  launcher+=(--map-by slot:OVERSUBSCRIBE --bind-to none)
fi
for name in $(compgen -e | grep -E '^((NCCL|UCX|CUDA|OMP)_|LD_LIBRARY_PATH$)') "${forward[@]}"; do launcher+=(-x "$name"); done
launcher+=("${mpirun_words[@]}")

try_machines=()
if [ "$preflight" = yes ]; then
  [ "${2:-}" = train ] || fail "--preflight is for PROGRAM train, not for: $*"
  try_machines=("${launcher[@]}" "$1" preflight "${preflight_words[@]}")
  skip=no
  for word in "${@:3}"; do # --resume is of train alone
    if [ "$skip" = yes ]; then skip=no; continue; fi
    case $word in
      --resume) skip=yes ;;
      --resume=*) ;;
      *) try_machines+=("$word") ;;
    esac
  done
fi
if [ "$dry" = yes ]; then
  [ "$preflight" = no ] || show preflight "${try_machines[@]}"
  show command "${launcher[@]}" "$@"
  exit 0
fi
if [ "$preflight" = yes ]; then
  asked=no
  trap 'asked=yes' TERM INT USR1
  "${try_machines[@]}"
  code=$?
  if [ "$asked" = yes ]; then exit 75; fi
  if [ "$code" != 0 ]; then exit "$code"; fi
fi
trap - TERM INT USR1
exec "${launcher[@]}" "$@"

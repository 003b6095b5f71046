#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, to try job scripts on: slurmctld, two slurmd and munged, all of the
# calling user, on loopback, with keys, logs and state in one folder. For a trial, not for sharing: whoever can read the
# folder can use the cluster.
set -euo pipefail

usage() {
  cat <<'END'
usage: launch/local_slurm.sh start|stop|status|env [--folder FOLDER] [--port PORT] [--cpus N]
  start            brings up what of the cluster does not run, and waits until both nodes (n1, n2) can be used
  stop             ends it; jobs are cancelled
  status           what runs; ends with 1 when it is not up
  env              prints what a shell must export to use it:  eval "$(launch/local_slurm.sh env)"
  --folder FOLDER  where all of it lies (default: ${TMPDIR:-/tmp}/local_slurm-USER)
  --port PORT      the first of four ports (default 16817)
  --cpus N         CPUs that each node claims to have (default 8)
Needs slurmctld, slurmd and munged (Debian: slurm-wlm, munge). Logs: FOLDER/*.log.
END
}

say() { echo "local_slurm: $*" >&2; }
fail() { say "$*"; exit 1; }

[ $# -ge 1 ] || { usage >&2; exit 2; }
command=$1
shift
folder=${TMPDIR:-/tmp}/local_slurm-$(id -un) port=16817 cpus=8
while [ $# -gt 0 ]; do
  case $1 in
    --folder | --port | --cpus)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
[[ $port =~ ^[0-9]+$ && $cpus =~ ^[1-9][0-9]*$ ]] || { usage >&2; exit 2; }
nodes=(n1 n2)
conf=$folder/slurm.conf
export PATH=$PATH:/usr/sbin SLURM_CONF=$conf

running() { # running NAME: whether the process of FOLDER/NAME.pid lives
  local pid
  pid=$(cat "$folder/$1.pid" 2>/dev/null) && [ -n "$pid" ] && [[ $(ps -o stat= -p "$pid") =~ ^[^Z] ]] # nobody may have waited for it
}

write_configuration() {
  local host user
  host=$(hostname -s) user=$(id -un)
  cat >"$conf" <<END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=600
SlurmctldTimeout=30
SlurmdTimeout=10
JobRequeue=1
SchedulerParameters=sched_interval=1,batch_sched_delay=1,requeue_delay=1
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=$cpus State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=$cpus State=UNKNOWN
PartitionName=local Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
}

start_munge() {
  local key=$folder/munge.key
  [ -s "$key" ] || (umask 077 && head -c 1024 /dev/urandom >"$key")
  # Munge wants folders that nobody else may write to.
  munged --force --key-file="$key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed" --num-threads=2 ||
    fail "munged does not start, see $folder/munged.log"
}

start() {
  local tool node
  for tool in slurmctld slurmd munged sinfo; do
    command -v "$tool" >/dev/null || fail "$tool is not there; Debian: apt-get install slurm-wlm munge"
  done
  mkdir -p "$folder"/{state,spool-n1,spool-n2}
  chmod 755 "$folder"
  running munged || start_munge
  if ! running slurmctld; then
    write_configuration # of another port or number of CPUs; daemons that still run would have the old one
    for node in "${nodes[@]}"; do stop_daemon "slurmd-$node"; done
    slurmctld -c -f "$conf" || fail "slurmctld does not start, see $folder/slurmctld.log"
  fi
  for node in "${nodes[@]}"; do
    running "slurmd-$node" || slurmd -N "$node" -f "$conf" || fail "slurmd of $node does not start, see $folder/slurmd-$node.log"
  done
  wait_until_up
}

wait_until_up() {
  local try
  for ((try = 0; try < 150; ++try)); do
    if [ "$(sinfo -h -N -o %t 2>/dev/null | grep -cx 'idle\|mix\|alloc')" = "${#nodes[@]}" ]; then
      say "up: 2 nodes of $cpus CPUs, $folder"
      return
    fi
    sleep 0.2
  done
  sinfo -N >&2 || true
  fail "the nodes cannot be used after 30 s, see $folder/*.log"
}

stop_daemon() { # stop_daemon NAME
  local pid try
  running "$1" || return 0
  pid=$(cat "$folder/$1.pid")
  kill "$pid" 2>/dev/null || true
  for ((try = 0; try < 100; ++try)); do
    running "$1" || break
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
  rm -f "$folder/$1.pid"
}

stop() {
  local name
  if running slurmctld; then scancel --user="$(id -un)" 2>/dev/null || true; fi
  for name in slurmd-n1 slurmd-n2 slurmctld munged; do stop_daemon "$name"; done
  say "down"
}

case $command in
  start) start ;;
  stop) stop ;;
  status)
    for name in munged slurmctld slurmd-n1 slurmd-n2; do running "$name" || fail "is not up: no $name ($folder); start brings it up"; done
    sinfo -N -l
    squeue
    ;;
  env)
    printf 'export SLURM_CONF=%q\n' "$conf"
    ;;
  --help | -h) usage ;;
  *) usage >&2; exit 2 ;;
esac

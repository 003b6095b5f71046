#!/usr/bin/env bash
# Two hosts on this machine: network namespaces with a host name of their own, and a switch between them whose cable can
# be pulled. Processes and files are shared. Needs root, ip (Debian: iproute2), unshare,
# and iptables for a lossy cable.
set -euo pipefail

usage() {
  cat <<'END_OF_USAGE'
usage: tests/faults/two_hosts.sh possible [lossy]     whether this machine lets us; says why not, and ends with 77
       tests/faults/two_hosts.sh up NAME              hosts a (10.77.0.1) and b (10.77.0.2); NAME tells several pairs apart
       tests/faults/two_hosts.sh run NAME HOST COMMAND [ARGUMENTS...]
       tests/faults/two_hosts.sh cut NAME             the switch drops b's cable: both see a carrier, and no packet
       tests/faults/two_hosts.sh mend NAME
       tests/faults/two_hosts.sh slow NAME RATE       what b sends passes a token bucket: 10mbit; or off
       tests/faults/two_hosts.sh lossy NAME SHARE     b loses this share of what it is sent, and a of what b sends: 0.05
       tests/faults/two_hosts.sh down NAME            kills what still runs on them, and removes them
       tests/faults/two_hosts.sh mpirun NAME RANKS COMMAND [ARGUMENTS...]    on a, half of the ranks on each, over TCP
END_OF_USAGE
}

lossy_rule=(-A INPUT -i cable -m statistic --mode random --probability)

address() {
  case $1 in
    a) echo 10.77.0.1 ;;
    b) echo 10.77.0.2 ;;
    *) return 1 ;;
  esac
}

# mpirun calls this as it would ssh: ADDRESS WORDS..., which a shell there takes as one command.
agent() {
  local name=$1 host
  shift
  case $1 in
    10.77.0.1) host=a ;;
    10.77.0.2) host=b ;;
    *) echo "two_hosts: no host $1" >&2; exit 2 ;;
  esac
  shift
  exec "$0" run "$name" "$host" bash -c "$*"
}

possible() { # possible [lossy]
  local probe=possible-$$ program why
  for program in ip unshare; do
    command -v "$program" >/dev/null || { echo "two_hosts: skipped: there is no program $program here"; exit 77; }
  done
  if ! why=$(ip netns add "$probe" 2>&1 && ip -n "$probe" link add type bridge 2>&1 && unshare --uts true 2>&1); then
    ip netns delete "$probe" 2>/dev/null || true
    echo "two_hosts: skipped: this machine lets us make no network namespaces, bridges or host names: $why"
    exit 77
  fi
  if [ "${1:-}" = lossy ] && ! why=$(ip netns exec "$probe" iptables "${lossy_rule[@]}" 0.5 -j DROP 2>&1); then
    ip netns delete "$probe"
    echo "two_hosts: skipped: packets cannot be lost here: $why"
    exit 77
  fi
  ip netns delete "$probe"
}

up() {
  local host
  ip netns add "$1-switch"
  ip -n "$1-switch" link add bridge type bridge
  ip -n "$1-switch" link set bridge up
  for host in a b; do
    ip netns add "$1-$host"
    ip -n "$1-$host" link set lo up
    ip -n "$1-$host" link add cable type veth peer name "port-$host" netns "$1-switch"
    ip -n "$1-$host" address add "$(address $host)/24" dev cable
    ip -n "$1-$host" link set cable up
    ip -n "$1-switch" link set dev "port-$host" master bridge up
  done
}

down() {
  local host pids
  for host in a b; do
    pids=$(ip netns pids "$1-$host" 2>/dev/null) || continue
    # shellcheck disable=SC2086 # several
    [ -z "$pids" ] || kill -KILL $pids 2>/dev/null || true
  done
  for host in a b switch; do ip netns delete "$1-$host" 2>/dev/null || true; done
}

[ $# -ge 1 ] || { usage >&2; exit 2; }
command=$1
shift
case $command in
  possible) possible "$@" ;;
  up | down) "$command" "$1" ;;
  cut) ip -n "$1-switch" link set dev port-b nomaster ;;
  mend) ip -n "$1-switch" link set dev port-b master bridge ;;
  slow)
    if [ "$2" = off ]; then
      ip netns exec "$1-b" tc qdisc del dev cable root
    else
      ip netns exec "$1-b" tc qdisc replace dev cable root tbf rate "$2" burst 64kb latency 400ms
    fi
    ;;
  lossy)
    for host in a b; do
      ip netns exec "$1-$host" iptables "${lossy_rule[@]}" "$2" -j DROP
    done
    ;;
  run)
    name=$1 host=$2
    shift 2
    # shellcheck disable=SC2016 # for the shell that it starts
    exec ip netns exec "$name-$host" unshare --uts bash -c 'hostname "$0" && exec "$@"' "$name-$host" "$@"
    ;;
  agent) agent "$@" ;;
  mpirun)
    name=$1 ranks=$2
    shift 2
    half=$((ranks / 2))
    exec "$0" run "$name" a "$(dirname "$0")/../../launch/hosts.sh" --hosts "10.77.0.1:$half,10.77.0.2:$half" --cores-per-rank 0 \
      --interfaces 10.77.0.0/24 --agent "$0 agent $name" \
      --mpirun "--mca btl_vader_single_copy_mechanism none --mca mpi_yield_when_idle 1" "$@"
    ;;
  *) usage >&2; exit 2 ;;
esac

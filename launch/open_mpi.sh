# What Open MPI 4 and 5 call by different names, for scripts that source this. Version 5 starts ranks by PRRTE in place of
# ORTE: daemons, networks and agents are options of PRRTE's there, and --quiet is gone.
# shellcheck shell=bash disable=SC2034 # the script that sources this reads its variables
open_mpi_version=$(mpirun --version 2>/dev/null | sed -n '1s/.*(Open MPI) \([0-9][0-9.]*\).*/\1/p' || true)
case ${open_mpi_version%%.*} in
  4) open_mpi_daemon=orted open_mpi_shm=vader open_mpi_quiet=(--quiet) ;;
  5) open_mpi_daemon=prted open_mpi_shm=sm open_mpi_quiet=() ;;
  *)
    echo "${0##*/}: Open MPI 4 or 5 is needed, \`mpirun --version\` says: $(mpirun --version 2>&1 | head -n 1)" >&2
    exit 2
    ;;
esac
open_mpi_root=()
if [ "$(id -u)" = 0 ]; then open_mpi_root=(--allow-run-as-root); fi

# Networks that ranks and daemons may use: names or subnets, with commas.
open_mpi_use_interfaces() { # open_mpi_use_interfaces LIST
  export OMPI_MCA_btl_tcp_if_include=$1
  if [ "$open_mpi_daemon" = orted ]; then export OMPI_MCA_oob_tcp_if_include=$1; else export PRTE_MCA_prte_if_include=$1; fi
}

# The command that takes HOST COMMAND as ssh does.
open_mpi_use_agent() { # open_mpi_use_agent COMMAND
  if [ "$open_mpi_daemon" = orted ]; then export OMPI_MCA_plm_rsh_agent=$1; else export PRTE_MCA_plm_ssh_agent=$1; fi
}

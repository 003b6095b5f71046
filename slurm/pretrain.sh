# Common part of the job scripts, which set `script`, `model`, `layout`, `micro_batch` and perhaps `recipe`, and source it.
#   sbatch slurm/red_8b.sh            one job that goes on until train.steps is reached: it saves before its time is up,
#                                     puts itself back into the queue, and resumes
#   bash slurm/red_8b.sh              the same, submitted with the partition, account and options of slurm/site.env
#   sbatch slurm/tune_red_8b.sh       instruction tuning: a run of its own that begins with what red_8b.sh has learnt
#   DRY_RUN=1 bash slurm/red_8b.sh    plan, layout and commands; starts nothing, and needs no Slurm. Or: --dry-run
# From any folder; paths are those of the folder above this one.
# Environment: RUN_DIR, RUNS, DATA_CONFIG, TUNING_DATA_CONFIG (slurm/site.env); INITIALIZE_FROM, in place of RUNS/MODEL; MODEL, LAYOUT, MICRO_BATCH in place of the script's own;
# SITE_PREFLIGHT=stop, exclude, report or off: what becomes of a job with a machine that is not fit;
# OPTIONS: more options of `redllm train`, such as "--train.steps=1000"; MAX_RESTARTS (default 3), without progress.
# shellcheck shell=bash disable=SC2154,SC2317 # the script that sources this sets its variables; handlers of signals are reached
set -euo pipefail
script=$(realpath "$script")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck disable=SC1091 # it is checked as a file of its own
source slurm/site.env
# shellcheck source=launch/binding.sh
source launch/binding.sh
# shellcheck source=launch/wait_for.sh
source launch/wait_for.sh

say() { echo "$(date '+%F %T') ${SLURM_JOB_ID:+job $SLURM_JOB_ID: }$*"; }
fail() { say "$*" >&2; exit 2; }

model=${MODEL:-$model} layout=${LAYOUT:-$layout} micro_batch=${MICRO_BATCH:-$micro_batch}
recipe=${recipe:-pretrain} initial=()
run_dir=$RUNS/$model
if [ "$recipe" = instruction_tuning ]; then
  initial=("--checkpoint.initialize_from=${INITIALIZE_FROM:-$run_dir}")
  run_dir+=_tuned DATA_CONFIG=$TUNING_DATA_CONFIG
fi
run_dir=${RUN_DIR:-$run_dir}
excluded=$run_dir/excluded_nodes
dry=no
if [ "${DRY_RUN:-}" = 1 ] || [ "${1:-}" = --dry-run ]; then dry=yes; fi
case $SITE_PREFLIGHT in
  stop | exclude | report | off) ;;
  *) fail "SITE_PREFLIGHT=$SITE_PREFLIGHT: stop, exclude, report or off" ;;
esac
read -ra more_options <<<"${OPTIONS:-}"

options=(--config "configs/models/$model.ini" --config "configs/$recipe.ini" --config "$DATA_CONFIG" "${initial[@]}")
stages=0 ranks=1
for part in $layout; do
  [[ $part =~ ^(data|tensor|encoder_stages|decoder_stages)=([0-9]+)$ ]] || fail "layout: $part is not data=N, tensor=N, encoder_stages=N or decoder_stages=N"
  options+=("--parallel.$part")
  case $part in
    *_stages=*) stages=$((stages + BASH_REMATCH[2])) ;;
    *) ranks=$((ranks * BASH_REMATCH[2])) ;;
  esac
done
ranks=$((ranks * stages))
options+=("--train.micro_batch=$micro_batch" "--train.run_dir=$run_dir" "${more_options[@]}")

use_site() {
  set +eu # which what a site wrote need not bear
  # shellcheck disable=SC1090 # the site's own
  if [ -n "$SITE_SETUP" ]; then source "$SITE_SETUP"; fi
  if [ -n "$SITE_MODULES" ]; then
    type module >/dev/null 2>&1 || fail "SITE_MODULES is set, but there is no \`module\` here; SITE_SETUP may source what defines it"
    # shellcheck disable=SC2086 # several words
    module load $SITE_MODULES || fail "SITE_MODULES: \`module load $SITE_MODULES\` ended with $?"
  fi
  set -eu
  if [ -n "$SITE_NCCL_INTERFACES" ]; then export NCCL_SOCKET_IFNAME=$SITE_NCCL_INTERFACES; fi
  if [ -n "$SITE_NCCL_HCAS" ]; then export NCCL_IB_HCA=$SITE_NCCL_HCAS; fi
  export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
  export OMPI_MCA_pml_ob1_send_pipeline_depth=${OMPI_MCA_pml_ob1_send_pipeline_depth:-16} # as launch/local.sh and hosts.sh
}

say_variables() {
  local name
  for name in $(compgen -e | grep -E '^(NCCL|OMPI_MCA|PRTE_MCA|PMIX_MCA|CUDA|UCX)_' || true); do say "$name=${!name}"; done
}

# Whether srun starts ranks that know each other: Slurm has PMIx, and so has Open MPI: version 5 always, version 4 as one of
# these components; its others speak PMI-1 and PMI-2.
srun_has_pmix() {
  srun --mpi=list 2>&1 | grep -w pmix >/dev/null || return 1
  [ "${open_mpi_version%%.*}" -ge 5 ] || ompi_info 2>/dev/null | grep 'MCA pmix: \(pmix[0-9]x\|ext[0-9]x\)' >/dev/null
}

# CPUs that the job has on the node where it has the fewest, as Slurm counts them; SLURM_JOB_CPUS_PER_NODE is such as "64(x2),48".
job_cpus() {
  if [ -n "${SLURM_JOB_CPUS_PER_NODE:-}" ]; then
    tr ',' '\n' <<<"$SLURM_JOB_CPUS_PER_NODE" | sed 's/(.*//' | sort -n | head -n 1
  else
    own_cpus
  fi
}

# Sets what each rank is bound to: `cpus_per_task` for srun, `cores_per_rank` for mpirun, which counts whole cores; 0: it is not,
# for `unbound_because`. Nodes are as this one.
choose_cores() { # choose_cores RANKS-OF-A-NODE
  local cores here cpus part=no
  read -r cores here numa_nodes <<<"$(machine_of)"
  cpus=$(job_cpus)
  # Some sites count cores as CPUs. Of a part nobody knows which nodes of NUMA it is on.
  if { [ "$cpus" -lt "$here" ] && [ "$cpus" != "$cores" ]; } || [ "$(own_cpus)" -lt "$here" ]; then part=yes numa_nodes=1; fi
  cpus_per_task=${SLURM_CPUS_PER_TASK:-0} cores_per_rank=0 unbound_because=''
  if [ "$cpus_per_task" -gt 0 ]; then
    cores_per_rank=$((cpus_per_task * $1 < cores ? cpus_per_task : cores / $1))
    [ "$cores_per_rank" -gt 0 ] || unbound_because="$cores cores for $1 rank(s)"
  elif [[ ${program##*/} == *-cuda ]]; then
    unbound_because='they bind themselves to cores near their GPUs'
  else
    share_cores "$1" $((cpus < cores ? cpus : cores)) $((cpus < here ? cpus : here)) "$(threads_asked "${options[@]}")"
    if [ "$part" = yes ]; then # of which mpirun would take any
      if [ "$cores_per_rank" -gt 0 ]; then cpus_per_task=$((cpus / $1)); fi
      cores_per_rank=0 unbound_because="the job has $cpus of $here CPUs of a node"
    else
      cpus_per_task=$((cores_per_rank * (cpus < here ? cpus : here) / cores))
    fi
  fi
}

say_binding() {
  if [ "$kind" = srun ] && [ "$cpus_per_task" -gt 0 ]; then
    say "binding: each rank to the cores of $cpus_per_task CPUs, by Slurm's task/affinity"
  elif [ "$kind" = mpirun ] && [ "$cores_per_rank" -gt 0 ]; then
    say "binding: each rank to $cores_per_rank cores"
  else
    say "binding: ranks are not bound: $unbound_because"
  fi
}

# Sets `launcher`, an array.
choose_launcher() {
  local per_node=${SLURM_NTASKS_PER_NODE:-$(sed -n 's/^#SBATCH --ntasks-per-node=//p' "$script")} more
  choose_cores "$per_node"
  kind=${SITE_LAUNCHER:-}
  case $kind in
    srun) ;; # Open MPI may be in the container alone
    mpirun | '')
      # shellcheck source=launch/open_mpi.sh
      source launch/open_mpi.sh
      if [ -z "$kind" ]; then if srun_has_pmix; then kind=srun; else kind=mpirun; fi; fi
      ;;
    *) fail "SITE_LAUNCHER=$SITE_LAUNCHER: mpirun, srun or empty" ;;
  esac
  if [ "$kind" = srun ]; then
    read -ra more <<<"$SITE_SRUN"
    if [ -n "$SITE_MPI_INTERFACES" ]; then export OMPI_MCA_btl_tcp_if_include=$SITE_MPI_INTERFACES; fi # there are no daemons
    launcher=(srun --mpi=pmix --ntasks="$ranks" --ntasks-per-node="$per_node" --kill-on-bad-exit=1)
    if [ "$cpus_per_task" -gt 0 ]; then # which srun does not take from the job's environment since Slurm 22.05
      launcher+=(--cpus-per-task="$cpus_per_task" --cpu-bind=cores)
    else
      launcher+=(--cpu-bind=none)
    fi
    launcher+=("${more[@]}")
  else
    read -ra more <<<"$SITE_MPIRUN"
    if [ -n "$SITE_MPI_INTERFACES" ]; then open_mpi_use_interfaces "$SITE_MPI_INTERFACES"; fi
    launcher=(mpirun -n "$ranks")
    if [ "$cores_per_rank" -gt 0 ]; then
      launcher+=(--map-by "$(bound_map "$per_node" "$numa_nodes" "ppr:$per_node:node")" --bind-to core)
    else
      launcher+=(--map-by "ppr:$per_node:node" --bind-to none)
    fi
    launcher+=(--oversubscribe "${open_mpi_quiet[@]}")
    launcher+=("${open_mpi_root[@]}" "${more[@]}")
  fi
  read -ra more <<<"$SITE_CONTAINER"
  launcher+=("${more[@]}")
}

check_allocation() {
  local tasks=${SLURM_NTASKS:-$ranks}
  [ "$tasks" = "$ranks" ] || fail "$model in the layout \"$layout\" needs $ranks ranks, the job has $tasks tasks: sbatch --nodes=N --ntasks-per-node=$ranks/N, or set LAYOUT"
  [ -r "$DATA_CONFIG" ] || fail "$DATA_CONFIG cannot be read (DATA_CONFIG, TUNING_DATA_CONFIG): it names data.tokenizer and the [data.source.NAME] sections (README.md, \"Commands\")"
}

submit() {
  local site
  command -v sbatch >/dev/null || fail "there is no sbatch here; DRY_RUN=1 shows what a job would do, launch/local.sh trains without Slurm"
  read -ra site <<<"$SITE_SBATCH"
  if [ "$SITE_PREFLIGHT" = exclude ] && [ -s "$excluded" ]; then site=("--exclude=$(unfit_nodes)" "${site[@]}"); fi
  exec sbatch ${SITE_PARTITION:+"--partition=$SITE_PARTITION"} ${SITE_ACCOUNT:+"--account=$SITE_ACCOUNT"} "${site[@]}" "$script"
}

show() { # show NAME WORD...: as a shell would take them
  printf '%s:' "$1"
  printf ' %q' "${@:2}"
  printf '\n'
}

# What preflights of this run have found unfit, as sbatch --exclude takes it.
unfit_nodes() { sort -u "$excluded" | paste -sd,; }
num_unfit() { if [ -e "$excluded" ]; then sort -u "$excluded" | wc -l; else echo 0; fi; }

# Whether what ended with `code` did so on request: ranks die of a signal that comes before they listen, and are killed when the
# job's time is up before they have saved. Nobody sends a SIGUSR1 for anything else, so it counts whoever got it.
# Whatever died while it was asked to stop goes on in the next start, but what would end the same way (launch/supervise.sh).
was_stopped() {
  case $code in
    75 | 138) ;;
    0 | 2 | 3 | 5 | 9) return 1 ;;
    *) [ "$asked" = yes ] ;;
  esac
}

# Whether somebody cancelled the job, which a plain `scancel` does: Slurm would requeue it all the same. A job whose time is up
# is completing too.
was_cancelled() {
  local facts
  facts=$(scontrol show job "$SLURM_JOB_ID" 2>/dev/null) || return 1
  case $(fact JobState) in
    CANCELLED | COMPLETING) [ "$(seconds_of "$(fact RunTime)")" -lt "$(seconds_of "$(fact TimeLimit)")" ] ;;
    *) return 1 ;;
  esac
}
fact() { tr ' ' '\n' <<<"$facts" | sed -n "s/^$1=//p" | head -n 1; }
# Of [days-]hours:minutes:seconds; what is no time is no limit.
seconds_of() {
  if [[ $1 =~ ^(([0-9]+)-)?([0-9]+):([0-9]+):([0-9]+)$ ]]; then
    echo $(((10#${BASH_REMATCH[2]:-0} * 24 + 10#${BASH_REMATCH[3]}) * 3600 + 10#${BASH_REMATCH[4]} * 60 + 10#${BASH_REMATCH[5]}))
  else
    echo 9999999999
  fi
}

# Whether it may go well if it is done again (as launch/supervise.sh has it).
may_be_chance() {
  case $code in
    0 | 2 | 3 | 5 | 9 | 75 | 138) return 1 ;;
    *) [ "$asked" = no ] ;;
  esac
}

# Sets `code` to how it ended. Signals reach it meanwhile, and never this shell alone.
run_child() { # run_child COMMAND...
  "$@" &
  child=$!
  wait_for "$child" && code=0 || code=$?
  child=''
}

# Sets `code`; false: it did not end by itself. A launcher may wait for ever for a machine that is gone. timeout hands on the one
# signal that it is told.
run_preflight() {
  local begin=$SECONDS
  run_child timeout --signal=USR1 --kill-after=30 "$SITE_PREFLIGHT_SECONDS" "${preflight[@]}"
  if [ $((SECONDS - begin)) -ge "$SITE_PREFLIGHT_SECONDS" ]; then
    say "preflight did not end within $SITE_PREFLIGHT_SECONDS s (SITE_PREFLIGHT_SECONDS)"
    code=8
    return 1
  fi
}

# Sets `code`: 0 where the machines are fit for the run, or need not be.
try_machines() {
  code=0
  [ "$SITE_PREFLIGHT" != off ] || return 0
  say "preflight: ${preflight[*]}"
  if run_preflight && may_be_chance; then
    say "preflight ended with $code: once more in 10 s"
    sleep 10 || true # a signal to all of the job
    if [ "$asked" = no ]; then run_preflight || true; fi
  fi
  if was_stopped; then asked=yes code=0; fi
  if [ "$SITE_PREFLIGHT" = report ]; then code=0; fi
}

leave() { # leave CODE NODES-KNOWN-BEFORE: after preflight, without training
  if [ "$1" = 9 ] && [ "$SITE_PREFLIGHT" = exclude ]; then leave_nodes_out "$2"; fi
  say "ended with $1 (README.md, \"Exit codes\")"
  exit "$1"
}

# Each job that is submitted this way leaves out one node more than the one before, so there is an end to them.
leave_nodes_out() { # leave_nodes_out NUMBER-OF-NODES-KNOWN-BEFORE
  local told
  if [ "$(num_unfit)" -le "$1" ]; then
    say "not submitted again: preflight names no node that is not in $excluded yet"
  elif [ "$(num_unfit)" -gt "$SITE_MOST_EXCLUDED" ]; then
    say "more nodes than SITE_MOST_EXCLUDED=$SITE_MOST_EXCLUDED are not fit for the run: $(unfit_nodes) ($excluded)"
  elif told=$(submit_without "$(unfit_nodes)"); then
    say "submitted again without $(unfit_nodes): $told"
  else
    say "cannot be submitted again without $(unfit_nodes): $told"
  fi
}

# A job that runs cannot be told to leave nodes out, so another one is submitted, of the same size. Of what the first one's
# sbatch was told beside the script, this and SBATCH_... variables remain.
submit_without() {
  local site
  read -ra site <<<"$SITE_SBATCH"
  sbatch --parsable --exclude="$1" --nodes="$SLURM_JOB_NUM_NODES" \
    ${SLURM_NTASKS_PER_NODE:+"--ntasks-per-node=$SLURM_NTASKS_PER_NODE"} ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
    ${SLURM_JOB_PARTITION:+"--partition=$SLURM_JOB_PARTITION"} \
    ${SLURM_JOB_ACCOUNT:+"--account=$SLURM_JOB_ACCOUNT"} "${site[@]}" "$script" 2>&1
}

if [ "$dry" = no ] && [ -z "${SLURM_JOB_ID:-}" ]; then submit; fi

use_site
program=$(launch/program.sh)
choose_launcher
say_variables
train=("${launcher[@]}" "$program" train "${options[@]}")
preflight=("${launcher[@]}" "$program" preflight --tasks "${SLURM_NTASKS:-$ranks}" --exclude-file "$excluded")
read -ra preflight_options <<<"$SITE_PREFLIGHT_OPTIONS"
preflight+=("${preflight_options[@]}" "${options[@]}")
supervisor=(launch/supervise.sh --max-restarts "${MAX_RESTARTS:-3}" --run-dir "$run_dir" --)
if [ "$dry" = yes ]; then
  say "layout: $layout, $ranks ranks; launcher $kind; run folder $run_dir"
  say_binding
  say "job: $(grep '^#SBATCH' "$script" | sed 's/^#SBATCH //' | tr '\n' ' ')"
  if [ "$SITE_PREFLIGHT" != off ]; then show preflight "${preflight[@]}"; fi
  show command "${supervisor[@]}" "${train[@]}"
  if [ ! -r "$DATA_CONFIG" ]; then
    say "no $DATA_CONFIG here: planned without it"
    plan_data=(--data.tokenizer=none --data.source.none.tokens=none)
    for i in "${!options[@]}"; do if [ "${options[$i]}" = "$DATA_CONFIG" ]; then unset "options[$i]" "options[$((i - 1))]"; fi; done
  fi
  exec "$program" plan "${options[@]}" "${plan_data[@]}"
fi

check_allocation
mkdir -p "$run_dir"
asked=no asked_at=0 hand_on=USR1 child='' code=0
# Before training there is nothing to save: the job goes back into the queue.
on_signal() { # on_signal NAME, which counts as in launch/supervise.sh
  if [ "$asked" = no ]; then
    asked=yes asked_at=$SECONDS
  elif [ "$1" != USR1 ] && [ $((SECONDS - asked_at)) -gt 3 ]; then
    hand_on=TERM # asked again: what does not save is to be killed
  fi
}
serve() {
  [ "$asked" = no ] || kill -"$hand_on" "$child" 2>/dev/null || :
}
for name in USR1 TERM INT; do
  # shellcheck disable=SC2064 # the name is meant now
  trap "on_signal $name" "$name"
done
say_binding
known=$(num_unfit)
try_machines
if [ "$code" != 0 ]; then leave "$code" "$known"; fi
if [ "$asked" = yes ]; then
  code=75
else
  say "start ${SLURM_RESTART_COUNT:-0} on ${SLURM_JOB_NODELIST:-this machine}: ${train[*]}"
  run_child "${supervisor[@]}" "${train[@]}"
  if was_stopped; then
    if [ "$code" != 75 ]; then say "ended with $code instead of saving: what is behind the newest checkpoint will be done again"; fi
    code=75
  fi
fi
case $code in
  0) say "done" ;;
  75)
    if was_cancelled; then
      say "cancelled: not put back into the queue; submit it again to go on"
    else
      say "asked to stop before the run's end: back into the queue"
      scontrol requeue "$SLURM_JOB_ID" || say "cannot be requeued; submit it again to go on"
    fi
    ;;
  *)
    say "ended with $code (README.md, \"Exit codes\")"
    if may_be_chance; then # or a machine is not fit any more, which preflight names
      ended_with=$code known=$(num_unfit)
      try_machines
      if [ "$code" = 9 ] && [ "$(num_unfit)" -gt "$known" ]; then leave 9 "$known"; fi
      code=$ended_with
    fi
    ;;
esac
exit "$code"

#!/usr/bin/env bash
# Pretrains DecLLM 4B on 64 GPUs: sbatch slurm/dec_4b.sh. See slurm/pretrain.sh.
#SBATCH --job-name=dec_4b
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
model=dec_4b
layout="data=64 tensor=1 encoder_stages=0 decoder_stages=1"
micro_batch=4
script=${BASH_SOURCE[0]} # of which Slurm runs a copy, in another folder
[ -r "$(dirname "$script")/pretrain.sh" ] || script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
# shellcheck source=slurm/pretrain.sh
source "$(dirname "$script")/pretrain.sh"

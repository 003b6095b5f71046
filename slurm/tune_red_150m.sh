#!/usr/bin/env bash
# Instruction tuning: goes on from the pretrained RedLLM 150M on 8 GPUs: sbatch slurm/tune_red_150m.sh. See slurm/pretrain.sh.
#SBATCH --job-name=tune_red_150m
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
model=red_150m
recipe=instruction_tuning
layout="data=4 tensor=1 encoder_stages=1 decoder_stages=1"
micro_batch=8
script=${BASH_SOURCE[0]} # of which Slurm runs a copy, in another folder
[ -r "$(dirname "$script")/pretrain.sh" ] || script=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
# shellcheck source=slurm/pretrain.sh
source "$(dirname "$script")/pretrain.sh"

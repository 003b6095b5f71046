#!/usr/bin/env bash
# Prints the program that suits this machine: redllm-cuda where it is built and a GPU answers, redllm elsewhere.
#   program=$(launch/program.sh)
#   REDLLM_BACKEND=cpu|cuda    chooses, instead of this machine
# In a job of Slurm a GPU without redllm-cuda is an error, not a line that nobody reads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=${REDLLM_BUILD:-build/release}
case ${REDLLM_BACKEND:-} in
  cpu) program=$build/redllm ;;
  cuda) program=$build/redllm-cuda ;;
  '')
    program=$build/redllm
    if nvidia-smi -L 2>/dev/null | grep '^GPU ' >/dev/null; then
      if [ -x "$build/redllm-cuda" ]; then
        program=$build/redllm-cuda
      elif [ -n "${SLURM_JOB_ID:-}" ]; then # a job that was given GPUs would not use them
        echo "launch/program.sh: job $SLURM_JOB_ID has a GPU, but $build/redllm-cuda is not built (docs/cuda.md:" \
          "cmake --preset release -DRED_CUDA=ON && cmake --build $build --target redllm-cuda)." \
          "REDLLM_BACKEND=cpu takes redllm all the same" >&2
        exit 2
      else
        echo "launch/program.sh: a GPU is here, but $build/redllm-cuda is not built (docs/cuda.md): using redllm" >&2
      fi
    fi
    ;;
  *)
    echo "launch/program.sh: REDLLM_BACKEND=$REDLLM_BACKEND: cpu or cuda, or unset" >&2
    exit 2
    ;;
esac
if [ ! -x "$program" ]; then
  echo "launch/program.sh: $program is not built (cmake --preset release && cmake --build build/release)" >&2
  exit 2
fi
echo "$program"

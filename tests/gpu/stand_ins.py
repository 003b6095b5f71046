"""What the tests here put in the place of nvidia-smi, of redllm-cuda, of mpirun and of PyTorch, and how they start run_all.sh."""
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "gpu" / "run_all.sh"


def run(*words: str, path: str | None = None, **more: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **more}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run([str(SCRIPT), *words], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def without(first: pathlib.Path, *programs: str) -> str:
    """A PATH that is `first`, which gets links to all that this one has, but such programs."""
    for folder in os.environ["PATH"].split(os.pathsep):
        for found in pathlib.Path(folder).glob("*") if pathlib.Path(folder).is_dir() else ():
            link = first / found.name
            if found.name not in (*programs, "cmake") and not link.exists() and not link.is_symlink():
                link.symlink_to(found)
    return str(first)


SMI = """#!/bin/bash
case $1 in
  -L)
    for i in $(seq 0 $((${FAKE_GPUS:-1} - 1))); do
      echo "GPU $i: NVIDIA H100 80GB HBM3 (UUID: GPU-$i)"
      [ -z "$FAKE_MIG" ] || echo "  MIG 3g.40gb     Device  0: (UUID: MIG-$i)"
    done ;;
  --query-gpu=memory.total) echo 81559 ;;
  *) echo 'NVIDIA H100 80GB HBM3, 580.65.06, 81559 MiB, 1980 MHz, 2619 MHz, 700.00 W, Enabled, Disabled, 00000000:19:00.0' ;;
esac
"""
PROGRAM = """#!/bin/bash
case "$1 $2" in
  'bench ops') echo 'a line for people'; echo '{"device": "GPU", "ops": [{"op": "q, k, v", "share": 0.5}]}' ;;
  'plan --json')
    case "$*" in
      *dec_2b*) bytes=200 ;;
      *) bytes=60 ;;
    esac
    echo '{"largest_rank_bytes":' ${bytes}000000000', "ranks": [{"memory": {"checkpoint_copy": 10000000000}}]}' ;;
  'bench step')
    [ -z "$FAKE_CALLS" ] || echo "$*" >>"$FAKE_CALLS"
    case "$*" in
      *dec_1b*cudnn*) echo 'an illegal address' >&2; exit 134 ;;
      *red_1b*cudnn*) echo '{"tokens_per_s": 505.0, "mfu": 0.31, "cudnn_passes": 0, "cudnn_refusal": "no such heads"}' ;;
      *cudnn*) echo 'there is no cuDNN' >&2; exit 2 ;;
      *red_150m*) echo '{"tokens_per_s": 1000.0, "mfu": 0.45}' ;;
      *) echo '{"tokens_per_s": 500.0, "mfu": 0.30}' ;;
    esac ;;
  *) exit 1 ;;
esac
"""


# Open MPI's as far as launch/local.sh knows it, with one rank in the place of all: the last word is the program.
MPIRUN = """#!/bin/bash
case "$*" in
  *--version*) echo 'mpirun (Open MPI) 4.1.4' ;;
  *) [ "$1" = -n ] && export FAKE_RANKS=$2 && exec "${@: -1}" ;;
esac
"""
# As the program chooses: NCCL where each rank sees a GPU of its own.
TRANSPORT = """
IFS=, read -r -a seen <<<"${CUDA_VISIBLE_DEVICES-0,1,2,3,4,5,6,7}"
if [ ${#seen[@]} -ge "$FAKE_RANKS" ] && [ -z "$FAKE_NO_NCCL" ]; then
  echo 'ranks exchange GPU memory over NCCL 2.30.7' >&2
else
  echo 'ranks exchange GPU memory over MPI, through host memory, which is slow: ranks 0 and 1 share a GPU' >&2
fi
echo "${CUDA_VISIBLE_DEVICES-all}" >>"$FAKE_SEEN"
"""
# A PyTorch that sees the GPU, and whose step ends as FAKE_TORCH says.
TORCH = """
import os
import sys
import time


class cuda:
    @staticmethod
    def is_available():
        return True


class OutOfMemoryError(RuntimeError):
    __module__ = "torch"


if sys.argv[0].endswith("torch_step.py"):
    end = os.environ["FAKE_TORCH"]
    batch = next(int(word.split("=")[1]) for word in sys.argv if word.startswith("--batch="))
    with open(os.environ.get("FAKE_CALLS", os.devnull), "a") as file:
        file.write("torch\\n")
    if end == "memory" or end == "memory for 4" and batch > 4:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if end == "compiler":
        raise RuntimeError("no kernel image is available")
    if end == "killed":
        os.kill(os.getpid(), 9)
    if end == "asleep":
        time.sleep(60)
    print('{"tokens_per_s": 500.0}', flush=True)
    os._exit(0)
"""

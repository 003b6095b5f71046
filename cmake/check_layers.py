#!/usr/bin/env python3
"""Holds every #include to the order of the folders in CMakeLists.txt: lower folders know nothing of higher ones. And what lies
above the backends is one code for all: it neither names CUDA nor its libraries."""
import pathlib
import re
import sys

RANK = {
    "base": 0, "device": 1, "ops": 2, "parallel": 2, "data": 3, "model": 4, "optim": 5, "checkpoint": 5,
    "config": 6, "train": 7, "convert": 7, "eval": 8, "launch": 9,
}
ROOT = pathlib.Path(__file__).resolve().parent.parent
SUFFIXES = {".hpp", ".cpp", ".cuh", ".cu"}
BACKENDS = {"base", "device", "ops", "parallel"}
TEXTS = {"config", "launch"}  # tell users of options and GPUs
CUDA = re.compile(r"cuda|nccl|nvml|cublas|cudnn", re.IGNORECASE)
INCLUDE = re.compile(r'^\s*#\s*include\s+"([a-z_]+)/')


def folder_of(path: pathlib.Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "src" else parts[0]


def main() -> int:
    wrong = []
    for top in ("src", "parallel", "checkpoint", "launch"):
        for path in sorted(path for path in (ROOT / top).rglob("*") if path.suffix in SUFFIXES):
            own = folder_of(path)
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if own not in BACKENDS | TEXTS and CUDA.search(line):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {own} must not mention CUDA")
                match = INCLUDE.match(line)
                if not match:
                    continue
                other = match.group(1)
                if other not in RANK:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: includes from an unknown folder '{other}'")
                elif other != own and RANK[other] >= RANK[own]:
                    wrong.append(f"{path.relative_to(ROOT)}:{number}: {own} must not include {other}")
    print("\n".join(wrong) if wrong else "every include follows the order of the folders, and CUDA stays in the backends")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Puts what tests/gpu/run_all.sh left in its folder into tests/bench/results/NAME.json, with hardware and versions."""
import argparse
import ctypes
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
import engine  # noqa: E402

FIELDS = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.memory", "power.limit", "ecc.mode.current",
          "mig.mode.current", "pci.bus_id")


def output_of(command: list, lib: str = "") -> str:
    """Of a program that may be absent: then nothing."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env=engine.environment_with(lib)).stdout.strip()
    except OSError:
        return ""


def gpus() -> list:
    lines = output_of(["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader"]).splitlines()
    return [dict(zip(FIELDS, (value.strip() for value in line.split(",")))) for line in lines]


def libraries_of(program: str, lib: str) -> dict:
    """Paths by name: what the loader gives the program."""
    found = re.findall(r"^\s*(\S+) => (/\S+)", output_of(["ldd", program], lib), re.MULTILINE)
    return dict(found)


def version_of(libraries: dict, prefix: str, function: str, by_pointer: bool) -> int | None:
    """What a library says of itself, as its headers encode it."""
    paths = [path for name, path in libraries.items() if name.startswith(prefix)]
    if not paths:
        return None
    try:
        call = getattr(ctypes.CDLL(paths[0]), function)
    except (OSError, AttributeError):
        return None
    if not by_pointer:
        call.restype = ctypes.c_size_t
        return call()
    number = ctypes.c_int()
    return number.value if call(ctypes.byref(number)) == 0 else None


def versions(program: str, lib: str) -> dict:
    libraries = libraries_of(program, lib)
    return {
        "cuda_runtime": version_of(libraries, "libcudart.so", "cudaRuntimeGetVersion", True),
        "cublaslt": version_of(libraries, "libcublasLt.so", "cublasLtGetVersion", False),
        "cudnn": version_of(libraries, "libcudnn.so", "cudnnGetVersion", False),
        "nccl": version_of(libraries, "libnccl.so", "ncclGetVersion", True),
        "mpirun": output_of(["mpirun", "--version"]).splitlines()[:1],
    }


def records(folder: pathlib.Path) -> list:
    lines = (folder / "records.tsv").read_text().splitlines()
    keys = ("part", "name", "verdict", "seconds", "detail")
    return [dict(zip(keys, line.split("\t"))) for line in lines]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--run", type=pathlib.Path, required=True, help="the folder")
    parser.add_argument("--program", required=True)
    parser.add_argument("--lib", default="", help="a folder of libraries that the program is run with")
    options = parser.parse_args()
    figures = {path.stem: json.loads(path.read_text()) for path in sorted(options.run.glob("*.json"))}
    path = engine.write(options.name, records(options.run), gpus=gpus(), versions=versions(options.program, options.lib), figures=figures)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())

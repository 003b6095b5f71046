#!/usr/bin/env python3
"""Puts what tests/gpu/run_all.sh left in its folder of one part into tests/bench/results/NAME.json, with hardware, versions, date and
commit. Parts that the file has already stay, and so does all that can be read where something cannot; then it ends with 1, once for
each such thing. It is called after each row, so what the machine is like is found out once and kept in that folder."""
from __future__ import annotations

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


def about(options: argparse.Namespace, trouble: list) -> dict:
    """What the machine and the sources are. What cannot be found out is told of and costs no row."""
    kept = options.run / "about.json"
    try:
        return json.loads(kept.read_text())
    except (OSError, ValueError):
        pass
    found = {}
    for what, find in (("machine and sources", lambda: engine.about(pathlib.Path(options.program))),
                       ("GPUs", lambda: {"gpus": gpus()}),
                       ("versions of libraries", lambda: {"versions": versions(options.program, options.lib)})):
        try:
            found |= find()
        except Exception as error:  # whatever it is: the rows matter more
            trouble.append(f"{what} are not known: {type(error).__name__}: {error}")
    engine.replace_file(kept, json.dumps(found))
    return found


def records(folder: pathlib.Path, part: str) -> list:
    lines = (folder / "records.tsv").read_text().splitlines()
    keys = ("part", "name", "verdict", "seconds", "detail")
    rows = [dict(zip(keys, line.split("\t"))) for line in lines]
    return [row for row in rows if row["part"] == part]


def figures(folder: pathlib.Path, part: str, trouble: list) -> dict:
    """By name of the file; one that cannot be read is told of and left out."""
    found = {}
    for path in [folder / f"{part}.json", *sorted(folder.glob(f"{part}-*.json"))]:
        try:
            if path.exists():
                found[path.stem] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            trouble.append(f"{path} has no figures: {error}")
    return found


def former_parts(path: pathlib.Path, trouble: list) -> dict:
    """Of the file that is there; one that cannot be read is kept under another name."""
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_text())["parts"]
        if not all(isinstance(part, dict) for part in parts.values()):
            raise TypeError("its parts are no objects")
        return parts
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        number = 1
        while (aside := path.with_name(f"{path.name}.unreadable-{number}")).exists():
            number += 1
        path.rename(aside)
        trouble.append(f"{path} could not be read ({type(error).__name__}: {error}); it is {aside.name} now")
        return {}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--part", required=True, help="the one that has a new row; others stay as the file has them")
    parser.add_argument("--unfinished", action="store_true", help="more rows are to come, or will not come")
    parser.add_argument("--run", type=pathlib.Path, required=True, help="the folder")
    parser.add_argument("--program", required=True)
    parser.add_argument("--lib", default="", help="folders of libraries that the program is run with")
    options = parser.parse_args()
    trouble = []
    part = {**about(options, trouble), "figures": figures(options.run, options.part, trouble)}
    try:
        part["rows"] = records(options.run, options.part)
    except (OSError, ValueError) as error:
        trouble.append(f"which tests ran is not known: {error}")
        part["rows"] = []
    if options.unfinished:
        part["unfinished"] = True
    engine.RESULTS.mkdir(parents=True, exist_ok=True)
    path = engine.RESULTS / f"{options.name}.json"
    parts = former_parts(path, trouble)
    told = options.run / "told.txt"
    before = told.read_text().splitlines() if told.exists() else []
    new = [line for line in (f"{options.part}: {text}" for text in trouble) if line not in before]
    if mine := [line for line in before + new if line.startswith(f"{options.part}: ")]:
        part["trouble"] = mine
    parts[options.part] = part
    engine.replace_file(path, json.dumps({"parts": parts}, indent=1) + "\n")
    told.write_text("".join(f"{line}\n" for line in before + new))
    for line in new:
        print(f"results: {line}", file=sys.stderr)
    print(path)
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())

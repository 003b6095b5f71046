"""What benchmarks share: options, runs of `redllm bench`, and what machine and build their figures belong to."""
from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build" / "release" / "redllm"
RESULTS = pathlib.Path(os.environ.get("REDLLM_RESULTS", ROOT / "tests" / "bench" / "results"))


def parser(description: str) -> argparse.ArgumentParser:
    """Of a comparison with a peer in turns."""
    result = argparse.ArgumentParser(description=description)
    result.add_argument("--dtype", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    result.add_argument("--rounds", type=int, default=3, help="figures are medians over them")
    result.add_argument("--name", help="write the figures to tests/bench/results/NAME.json")
    return result


def add_names(to: argparse.ArgumentParser, destination: str, known) -> None:
    """Positional names, all of the known ones where none is given. (Python 3.11 checks an empty list against choices.)"""
    def name(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(known)}")
        return text
    to.add_argument(destination, nargs="*", type=name, default=list(known), metavar="NAME", help=f"{', '.join(known)}; default: all")


def in_turns(programs, rounds: int):
    """Each program once a round, each round begun by another: none always runs on what the one before has left warm."""
    names = list(programs)
    for first in range(rounds):
        yield from names[first % len(names):] + names[:first % len(names)]


def finish(name: str | None, rows: list, below: list) -> int:
    """Keeps the figures where they have a name, tells the bars that are missed; the exit code."""
    if name:
        print(write(name, rows))
    print("\n".join(f"below its bar: {line}" for line in below) or f"every bar of these {len(rows)} rows is met")
    return 1 if below else 0


def bench_step(ranks: int, *options: str) -> dict:
    """One run of `redllm bench step`; its JSON."""
    command = [str(ROOT / "launch" / "local.sh"), "-n", str(ranks), str(PROGRAM), "bench", "step", "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def environment_with(lib: str) -> dict:
    """This one, with a folder of shared libraries in front, if it is named, and Open MPI's plug-ins in it."""
    if not lib:
        return dict(os.environ)
    plugins = pathlib.Path(lib, "openmpi")
    return {**os.environ, **({"OMPI_MCA_mca_base_component_path": str(plugins)} if plugins.is_dir() else {}),
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, (lib, os.environ.get("LD_LIBRARY_PATH"))))}


def cpu() -> dict:
    """Model, usable cores, and the instruction sets that the kernels are chosen by."""
    info = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    known = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")
    return {
        "model": fields.get("model name", platform.machine()),
        "family": fields.get("cpu family"),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in known if flag in fields.get("flags", "").split()],
        "at_most": os.environ.get("RED_MAX_CPU", ""),
    }


def revision() -> str:
    """Of the sources, with a mark where they have changes."""
    packed = ROOT / "revision.txt"  # tests/gpu/pack.sh, for a machine without the repository
    if packed.is_file():
        return packed.read_text().strip()
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip() or "unknown"


def about() -> dict:
    """What figures that are measured now belong to."""
    return {"date": datetime.date.today().isoformat(), "revision": revision(), "cpu": cpu()}


def replace_file(path: pathlib.Path, text: str) -> None:
    """All of it or nothing, whenever this process ends."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text)
    os.replace(unfinished, path)


def write(name: str, rows: list, **more) -> pathlib.Path:
    """Figures with what they belong to, under tests/bench/results (or REDLLM_RESULTS)."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    replace_file(path, json.dumps({**about(), **more, "rows": rows}, indent=1) + "\n")
    return path

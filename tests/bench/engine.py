"""What benchmarks share: options, runs of `redllm bench`, and what machine and build their figures belong to."""
from __future__ import annotations

import argparse
import ctypes
import datetime
import functools
import json
import os
import pathlib
import platform
import re
import shlex
import statistics
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


class Failed(Exception):
    """A program that ended badly or printed no figures, with what it said."""


class Results:
    """Rows as they come. With a name each is in its file at once: whatever ends a benchmark later, those before it are kept."""

    def __init__(self, name: str | None):
        self.name, self.rows, self.failed = name, [], []

    def keep(self, complete: bool = False) -> None:
        if self.name:
            path = write(self.name, self.rows, complete=complete, failed=self.failed)
            if complete:
                print(path)

    def take(self, what: str, measure) -> list:
        """The rows, or the row, that measure() returns; none where a program fails, which is told, kept and counted."""
        try:
            result = measure()
        except Failed as failure:
            print(f"{what}: {failure}", file=sys.stderr, flush=True)
            self.failed.append({"what": what, "why": str(failure)[-2000:]})
            result = []
        rows = result if isinstance(result, list) else [result]
        self.rows += rows
        self.keep()
        return rows

    def finish(self, below: list) -> int:
        """Tells the bars that are missed and what could not be measured; the exit code."""
        self.keep(complete=True)
        lines = [f"below its bar: {line}" for line in below] + [f"not measured: {failure['what']}" for failure in self.failed]
        print("\n".join(lines) or f"every bar of these {len(self.rows)} rows is met")
        return 1 if lines else 0


def finish(name: str | None, rows: list, below: list) -> int:
    """Of a benchmark whose rows are all there at its end."""
    results = Results(name)
    results.rows = rows
    return results.finish(below)


def figures_of(command: list, **options) -> dict:
    """The JSON object on the last line that a program prints."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False, **options)
    except OSError as error:
        raise Failed(f"{shlex.join(words)}\ncannot run: {error}") from error
    if done.returncode != 0:
        raise Failed(f"{shlex.join(words)}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failed(f"{shlex.join(words)}\nprinted no JSON object on its last line:\n{done.stdout}{done.stderr}") from error


def bench_step(ranks: int, *options: str) -> dict:
    """One run of `redllm bench step`; its JSON."""
    return figures_of([ROOT / "launch" / "local.sh", "-n", ranks, PROGRAM, "bench", "step", "--json", *options])


def medians(runs: list) -> dict:
    """Of objects with the same keys, each key's."""
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


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
        "model_number": fields.get("model"),
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in known if flag in fields.get("flags", "").split()],
        "at_most": os.environ.get("RED_MAX_CPU", ""),
    }


def output_of(*command) -> str:
    """What a program prints; nothing where it is absent or fails."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def revision() -> str:
    """Of the sources, with a mark where they have changes."""
    packed = ROOT / "revision.txt"  # tests/gpu/pack.sh, for a machine without the repository
    if packed.is_file():
        return packed.read_text().strip()
    commit = output_of("git", "describe", "--always")
    if not commit:
        return "unknown"
    if not output_of("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!tests/bench/results"):
        return commit
    print(f"the sources have changes that are not in {commit}", file=sys.stderr, flush=True)
    return f"{commit}-dirty"


@functools.cache
def build(program: pathlib.Path) -> dict:
    """How the program was built, by what CMake left beside it; empty where it was built elsewhere."""
    folder, result = program.parent, {}
    for path in folder.glob("CMakeFiles/*/CMakeCXXCompiler.cmake"):
        known = dict(re.findall(r'^set\(CMAKE_CXX_COMPILER_(ID|VERSION) "([^"]*)"', path.read_text(), re.MULTILINE))
        result["compiler"] = f"{known.get('ID')} {known.get('VERSION')}"
    commands = folder / "compile_commands.json"
    if commands.is_file():
        words = next((shlex.split(entry["command"]) for entry in json.loads(commands.read_text())
                      if entry["file"].endswith("/launch/main.cpp")), [])
        result["flags"] = [word for word in words
                           if re.match(r"-(O|std=|march=|mtune=|DNDEBUG|f)", word) and "prefix-map" not in word]
    return result


@functools.cache
def libraries(program: pathlib.Path) -> dict:
    """Versions of libraries that the program is linked with, where they tell; matrix products' is in rows (gemm)."""
    found, result = dict(re.findall(r"(libmpi|libsentencepiece)\.so\S* => (/\S+)", output_of("ldd", program))), {}
    if "libmpi" in found:
        try:
            text, length = ctypes.create_string_buffer(8192), ctypes.c_int()
            ctypes.CDLL(found["libmpi"]).MPI_Get_library_version(text, ctypes.byref(length))
            result["mpi"] = text.value.decode(errors="replace").split(",")[0].splitlines()[0].strip()
        except (OSError, AttributeError, IndexError):
            pass
    if "libsentencepiece" in found:
        result["sentencepiece"] = output_of("pkg-config", "--modversion", "sentencepiece") or "unknown"
    return result


def about(program: pathlib.Path = PROGRAM) -> dict:
    """What figures that are measured now belong to."""
    return {"date": datetime.date.today().isoformat(), "revision": revision(), "cpu": cpu(), "build": build(program),
            "libraries": libraries(program)}


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

#!/usr/bin/env python3
"""Runs clang-tidy over every source of the project: cmake/check_tidy.py BUILD_DIR [--jobs N].

A file whose contents, headers of ours, compile command and rules have not changed since it was found clean is not
looked at again; the record of that is kept where caches are kept, not in the build folder.
"""
import argparse
import concurrent.futures
import functools
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys

TOOL = "clang-tidy-14"
ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
SEARCHED = (ROOT / "src", ROOT, ROOT / "tests", ROOT / "tests/cuda_on_cpu")
# Kernels are read by nvcc, and in tests as C++ of another dialect; and clang-tidy reads no assembly.
SKIPPED = {".cu", ".S"}


@functools.lru_cache(maxsize=None)
def contents(path: pathlib.Path) -> bytes:
    return path.read_bytes()


def closure(path: pathlib.Path, seen: set) -> set:
    """The file and every header of ours that it includes, directly or not."""
    if path in seen:
        return seen
    seen.add(path)
    for name in INCLUDE.findall(contents(path)):
        for folder in (path.parent, *SEARCHED):
            header = folder / name.decode()
            if header.is_file():
                closure(header.resolve(), seen)
                break
    return seen


def key_of(path: pathlib.Path, command: str, rules: bytes) -> str:
    digest = hashlib.sha256(rules + command.replace(str(ROOT), "").encode())
    for part in sorted(closure(path, set())):
        digest.update(str(part.relative_to(ROOT)).encode() + b"\0" + contents(part))
    return digest.hexdigest()


def check(path: pathlib.Path, build_dir: str, stamp: pathlib.Path) -> str:
    done = subprocess.run([TOOL, "-p", build_dir, "-quiet", str(path)], capture_output=True, text=True)
    if done.returncode == 0:
        stamp.touch()
        return ""
    return done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("build_dir")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    arguments = parser.parse_args()

    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "redllm-tidy"
    cache.mkdir(parents=True, exist_ok=True)
    rules = b"".join(contents(ROOT / folder / ".clang-tidy") for folder in ("", "tests", "tests/cuda_on_cpu"))
    rules += subprocess.run([TOOL, "--version"], capture_output=True, check=True).stdout
    todo, known = [], 0
    for entry in json.loads(pathlib.Path(arguments.build_dir, "compile_commands.json").read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        built = path.is_relative_to(pathlib.Path(arguments.build_dir).resolve())
        if path.suffix in SKIPPED or built or not path.is_relative_to(ROOT):
            continue
        stamp = cache / key_of(path, entry["command"], rules)
        if stamp.exists():
            known += 1
        else:
            todo.append((path, arguments.build_dir, stamp))
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        findings = [text for text in pool.map(lambda job: check(*job), todo) if text]
    print("".join(findings), end="")
    print(f"{len(todo)} files looked at, {known} known to be clean, {len(findings)} with findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

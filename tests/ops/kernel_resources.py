#!/usr/bin/env python3
"""What each CUDA kernel takes of a multiprocessor, from the compiled code: registers, bytes on the stack (a kernel that
spills has some), static shared memory, and how many of the warps that fit these leave room for. Compares with the
committed table, or writes it. docs/cuda-kernels.md tells what to do about a kernel that spills."""
import argparse
import collections
import pathlib
import re
import subprocess
import sys

# Of one multiprocessor: registers, warps, blocks, bytes of shared memory (CUDA C++ programming guide, "Technical
# specifications per compute capability"). A block takes another 1024 bytes, which the compiler counts from 9.0 on; a
# warp's registers come in pieces of 256, and warps in fours, one for each of a multiprocessor's parts.
REGISTERS, WARPS, BLOCKS = 65536, 64, 32
SHARED = {"sm_80": 164 << 10, "sm_90a": 228 << 10, "sm_100": 228 << 10}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def occupancy(architecture: str, threads: int, registers: int, shared: int) -> int:
    """Percent of the warps. Shared memory that a launch adds is not known here."""
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    fitting = min(BLOCKS, WARPS // warps, REGISTERS // of_warp // 4 * 4 // warps, SHARED[architecture] // (shared + 1024))
    return round(100 * fitting * warps / WARPS)


def short_names(mangled: list) -> list:
    """name<template arguments>, without namespaces, arguments and the compiler's mark of a file."""
    text = run("c++filt", *mangled).splitlines()
    names = []
    for name in text:
        name = re.sub(r"_GLOBAL__N__\w+::|\(anonymous namespace\)::|red::ops::|red::", "", name)
        name = re.sub(r"^void ", "", name)
        depth, end = 0, len(name)
        for i, c in enumerate(name):
            depth += (c == "<") - (c == ">")
            if c == "(" and depth == 0:
                end = i
                break
        names.append(re.sub(r"\((?:int|bool)\)", "", name[:end]).replace("> >", ">>"))
    return names


def read(cuobjdump: str, archive: str) -> dict:
    """{kernel: {architecture: {field: number}}}"""
    found = collections.defaultdict(dict)
    architecture = function = None
    for line in run(cuobjdump, "--dump-resource-usage", archive).splitlines():
        if line.startswith("arch = "):
            architecture = line.removeprefix("arch = ").strip()
        elif match := re.match(r" Function (\S+):", line):
            function = match[1]
        elif match := re.match(r"\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", line):
            registers, stack, shared = map(int, match.groups())
            if architecture != "sm_80" and shared > 0:
                shared -= 1024
            found[function][architecture] = {"registers": registers, "stack": stack, "shared": shared}
    for architecture in {a for kernel in found.values() for a in kernel}:
        function = None
        lines = iter(run(cuobjdump, "-elf", "-arch", architecture, archive).splitlines())
        for line in lines:
            if line.startswith(".nv.info."):
                function = line.removeprefix(".nv.info.").strip()
            elif "EIATTR_MAX_THREADS" in line and function in found:
                next(lines)
                found[function][architecture]["threads"] = int(next(lines).split()[1], 16)
    mangled = sorted(found)
    return by_name(zip(short_names(mangled), (found[key] for key in mangled)))


def by_name(kernels) -> dict:
    """From pairs of name and {architecture: {field: number}}. The same template in two files is two kernels of one name: the most
    of either in each field stands for both, so that no spill is lost."""
    merged = {}
    for name, resources in kernels:
        of_name = merged.setdefault(name, {})
        for architecture, fields in resources.items():
            old = of_name.get(architecture, {})
            of_name[architecture] = {field: max(fields.get(field, 0), old.get(field, 0)) for field in fields | old}
    return dict(sorted(merged.items()))


def table(kernels: dict, compiler: str) -> str:
    lines = ["# What each CUDA kernel takes",
             "",
             f"Compiled by nvcc {compiler}. Written by `tests/ops/kernel_resources.py --write`; `ctest -R kernel_resources`",
             "compares. For each architecture: registers of a thread, bytes of stack (0: nothing is spilled), bytes of static",
             "shared memory, and the share of a multiprocessor's warps that registers and static shared memory leave room for.",
             "Threads: the most of a block (its launch bound).",
             "",
             "| kernel | threads | " + " | ".join(SHARED) + " |",
             "|---|---|" + "---|" * len(SHARED)]
    for name, by_architecture in kernels.items():
        threads = max(k.get("threads", 1024) for k in by_architecture.values())
        cells = []
        for architecture in SHARED:
            k = by_architecture.get(architecture)
            cells.append("" if k is None else
                         f"{k['registers']}, {k['stack']}, {k['shared']}, "
                         f"{occupancy(architecture, threads, k['registers'], k['shared'])} %")
        lines.append(f"| `{name}` | {threads} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuobjdump", required=True)
    parser.add_argument("--archive", required=True, help="the library of kernels")
    parser.add_argument("--compiler", required=True, help="nvcc's version")
    parser.add_argument("--table", required=True, type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="the table, instead of comparing with it")
    options = parser.parse_args()
    kernels = read(options.cuobjdump, options.archive)
    if not kernels:
        sys.exit(f"{options.archive} holds no kernels")
    text = table(kernels, options.compiler)
    if options.write:
        options.table.write_text(text)
    status = 0
    for name, by_architecture in kernels.items():
        for architecture, k in by_architecture.items():
            if k["stack"] > 0:
                print(f"{name} has {k['stack']} bytes on the stack on {architecture}: it spills, or indexes an array at run time")
                status = 1
    committed = options.table.read_text() if options.table.exists() else ""
    if f"nvcc {options.compiler}." not in committed:
        print(f"the table is of another compiler than nvcc {options.compiler}: registers not compared")
    elif any(set(k) != set(SHARED) for k in kernels.values()):
        print(f"not built for all of {', '.join(SHARED)}: registers not compared")
    elif committed != text:
        different = [line for line in text.splitlines() if line not in committed.splitlines()]
        print(f"{options.table} is not what was compiled; write it again by --write. New:\n" + "\n".join(different[:20]))
        status = 1
    if status == 0:
        print(f"{len(kernels)} kernels, none spills")
    return status


if __name__ == "__main__":
    sys.exit(main())

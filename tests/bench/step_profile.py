#!/usr/bin/env python3
"""Where the time of a training step goes, by op: perf's samples of `redllm bench step` after its start, by the kernels' names.

Needs perf (Debian: linux-perf) and the right to use it (kernel.perf_event_paranoid at most 2)."""
import argparse
import collections
import re
import subprocess
import sys
import tempfile

import engine

# The first that matches a sample's "object symbol" is its op.
OPS = (
    ("matrix products", r"\[JIT\]|dnnl|blas|gemm|matmul|transpose_four_rows|pack_panels"),
    ("attention", r"(forward|backward)_task_of|store_block|attention|delta_rows"),
    ("head norm and rotation", r"HeadNormArgs|head_norm"),
    ("SwiGLU", r"[Ss]wiglu"),
    ("cross-entropy", r"sum_of_exp|cross_entropy|CrossEntropy|partial|gradient_row|Target"),
    ("Adafactor", r"apply_row|::accumulate<|adafactor|Adafactor"),
    ("norms and residuals", r"backward_(gain|input)_rows|norm|Norm|sum_row|scale_row|add_rows|residual"),
    ("casts, fills, copies", r"round_row|widen|convert|fill|memmove|memset|copy|elementwise|for_each_vector|element"),
    ("threads waiting for tasks", r"ThreadPool|sched|futex|finish_task_switch|yield"),
    ("kernel", r"\[k\]"),
)


def op_of(sample: str) -> str:
    return next((name for name, pattern in OPS if re.search(pattern, sample)), "other")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-s", type=float, default=6.0, help="of start and warm-up, which are left out")
    parser.add_argument("--other", action="store_true", help="also print the symbols that are no op's")
    parser.add_argument("bench", nargs="+", help="arguments of `redllm bench step`, behind --")
    options = parser.parse_args()
    with tempfile.NamedTemporaryFile(prefix="perf.") as data:
        subprocess.run(["perf", "record", "-q", "-F", "499", "-o", data.name, f"--delay={int(options.delay_s * 1000)}", "--",
                        engine.PROGRAM, "bench", "step", *options.bench], cwd=engine.ROOT, check=True, stdout=subprocess.DEVNULL)
        report = subprocess.run(["perf", "report", "-i", data.name, "--no-children", "--sort", "dso,symbol", "--stdio", "-t", "|"],
                                capture_output=True, text=True, check=True).stdout
    shares, unknown = collections.Counter(), []
    for line in report.splitlines():
        fields = line.split("|")
        if line.startswith("#") or len(fields) < 3:
            continue
        share, sample = float(fields[0].strip().rstrip("%")), " ".join(fields[1:])
        op = op_of(sample)
        shares[op] += share
        if op == "other":
            unknown.append((share, " ".join(sample.split())))
    for op, share in shares.most_common():
        print(f"{op:<28} {share:>5.1f} %")
    if options.other:
        for share, sample in sorted(unknown, reverse=True)[:30]:
            print(f"  {share:>5.2f} {sample[:150]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""A training step beside PyTorch's, eager and compiled (the optimizer too): the same model, batch and dtype on the same cores, in turns.

Each round runs the three programs one after another; figures are medians over the rounds, of each run's median step. The bars: at least 1.1 times the
better of the two in fp32, 1.15 in the geometric mean, 1.3 in bf16, and at most 0.9 of the compiled one's memory."""
import math
import os
import statistics
import sys

import engine

PYTHON = engine.ROOT / "build" / "python-bench" / "bin" / "python"
PEER = engine.ROOT / "tests" / "bench" / "torch_step.py"
TINY = {"vocab_size": 4096, "d_model": 256, "d_ff": 1024, "num_heads": 2, "head_dim": 128}
WIDE = {"vocab_size": 32768, "d_model": 1024, "d_ff": 4096, "num_heads": 8, "head_dim": 128}
RED, DEC = {"kind": "red", "encoder_layers": 3, "decoder_layers": 3}, {"kind": "dec", "decoder_layers": 8}

# name: (model, window, batch). The first four are the bars; the others show that these are no lucky sizes.
CASES = {
    "red_150m": (WIDE | RED, 2048, 1),
    "dec_150m": (WIDE | DEC, 2048, 1),
    "red_tiny": (TINY | RED, 512, 4),
    "dec_tiny": (TINY | DEC, 512, 4),
    "red_uneven": (TINY | RED | {"vocab_size": 5003, "d_model": 328, "d_ff": 1000, "num_heads": 5, "head_dim": 72}, 256, 16),
    "dec_uneven": (TINY | DEC | {"vocab_size": 5003, "d_model": 328, "d_ff": 1000, "num_heads": 5, "head_dim": 72}, 768, 3),
    "red_long": (TINY | RED, 4096, 1),
    "dec_short": (TINY | DEC, 128, 16),
}
BARS = ("red_150m", "dec_150m", "red_tiny", "dec_tiny")


def ours(model: dict, window: int, batch: int, dtype: str, steps: int, threads: int) -> dict:
    keys = [f"--model.{key}={value}" for key, value in model.items()]
    return engine.bench_step(1, *keys, f"--data.window={window}", f"--train.micro_batch={batch}", f"--train.global_batch={batch}",
                             f"--train.precision={dtype}", f"--train.threads={threads}", f"--bench.steps={steps}")


def peer(model: dict, window: int, batch: int, dtype: str, steps: int, threads: int, compiled: bool) -> dict:
    options = [f"--{key}={value}" for key, value in model.items()]
    return engine.figures_of([PYTHON, PEER, *options, f"--window={window}", f"--batch={batch}", f"--dtype={dtype}",
                              f"--steps={steps}", f"--threads={threads}", *(["--compile"] if compiled else [])],
                             env={**os.environ, "OMP_NUM_THREADS": str(threads)})


def measure(name: str, dtype: str, rounds: int, steps: int) -> dict:
    model, window, batch = CASES[name]
    threads = engine.cpu()["cores"]
    runs = {"redllm": [], "eager": [], "compiled": []}
    for program in engine.in_turns(runs, rounds):
        runs[program].append(ours(model, window, batch, dtype, steps, threads) if program == "redllm" else
                             peer(model, window, batch, dtype, steps, threads, program == "compiled"))

    def median(program, key):
        return statistics.median(run[key] for run in runs[program])

    speed = {program: median(program, "tokens_per_s") for program in runs}
    return {
        "case": name, "dtype": dtype, "threads": threads, "rounds": rounds, "window": window, "batch": batch,
        "tokens_per_s": speed["redllm"], "eager_tokens_per_s": speed["eager"], "compiled_tokens_per_s": speed["compiled"],
        "ratio": speed["redllm"] / max(speed["eager"], speed["compiled"]), "peak_share": median("redllm", "peak_share"),
        "peak_gflops_per_s": median("redllm", "peak_gflops_per_s"), "model_gflops_per_s": median("redllm", "model_gflops_per_s"),
        "fma_peak_gflops_per_s": median("redllm", "fma_peak_gflops_per_s"),
        "fma_share": median("redllm", "model_gflops_per_s") / median("redllm", "fma_peak_gflops_per_s") if dtype == "fp32" else None,
        "gemm": runs["redllm"][0]["gemm"], "peer": runs["eager"][0]["program"],
        "peak_rss_mib": median("redllm", "peak_rss_mib"), "compiled_peak_rss_mib": median("compiled", "peak_rss_mib"),
        "memory_ratio": median("redllm", "peak_rss_mib") / median("compiled", "peak_rss_mib"),
        "phase_s": engine.medians([run["phase_s"] for run in runs["redllm"]]),
    }


def below_bars(rows: list) -> list:
    below = []
    for row in rows:
        if row["ratio"] < (1.1 if row["dtype"] == "fp32" else 1.3):
            below.append(f"{row['case']} {row['dtype']}: {row['ratio']:.2f} x")
        if row["memory_ratio"] > 0.9:
            below.append(f"{row['case']} {row['dtype']}: {row['memory_ratio']:.2f} x the memory")
    fp32 = [row["ratio"] for row in rows if row["dtype"] == "fp32" and row["case"] in BARS]
    if len(fp32) == len(BARS) and math.prod(fp32) ** (1 / len(fp32)) < 1.15:
        below.append(f"geometric mean in fp32: {math.prod(fp32) ** (1 / len(fp32)):.2f} x")
    return below


def main() -> int:
    parser = engine.parser(__doc__)
    engine.add_names(parser, "cases", CASES)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    results = engine.Results(options.name)
    print(f"{'case':<11} {'dtype':<5} {'redllm':>9} {'eager':>9} {'compiled':>9} {'ratio':>6} {'of peak':>8} {'of FMA':>7} {'MiB':>6} {'peer':>6}")
    for dtype in options.dtype:
        for name in options.cases:
            for row in results.take(f"{name} {dtype}", lambda: measure(name, dtype, options.rounds, options.steps)):
                of_fma = f"{row['fma_share']:.1%}" if row["fma_share"] is not None else "-"
                print(f"{name:<11} {dtype:<5} {row['tokens_per_s']:>9.1f} {row['eager_tokens_per_s']:>9.1f} "
                      f"{row['compiled_tokens_per_s']:>9.1f} {row['ratio']:>6.2f} {row['peak_share']:>8.1%} {of_fma:>7} {row['peak_rss_mib']:>6.0f} "
                      f"{row['compiled_peak_rss_mib']:>6.0f}", flush=True)
    return results.finish(below_bars(results.rows))


if __name__ == "__main__":
    sys.exit(main())

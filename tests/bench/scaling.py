#!/usr/bin/env python3
"""What dividing a model over two ranks of one thread costs, against one rank of two threads, at the same global batch.

Data parallel ranks must reach 95 %, tensor parallel ones 85 %; the optimizer and communication of a 150M step may take 6 %."""
import statistics
import sys

import engine

LAYOUTS = {"one rank": (1, 2, ()), "data 2": (2, 1, ("--parallel.data=2",)), "tensor 2": (2, 1, ("--parallel.tensor=2",))}
LEAST = {"one rank": 1.0, "data 2": 0.95, "tensor 2": 0.85}
MOST_OVERHEAD = 0.06
GLOBAL_BATCH = {"red_150m": 2, "dec_150m": 2, "red_tiny": 8, "dec_tiny": 8}


def overhead(result: dict) -> float:
    return (result["phase_s"]["optimizer"] + result["phase_s"]["communication"]) / result["step_s"]


def measure(model: str, dtype: str, rounds: int, steps: int) -> list:
    batch = GLOBAL_BATCH[model]
    runs = {name: [] for name in LAYOUTS}
    for name in engine.in_turns(LAYOUTS, rounds):
        ranks, threads, keys = LAYOUTS[name]
        runs[name].append(engine.bench_step(
            ranks, "--config", f"configs/bench/{model}.ini", f"--train.global_batch={batch}", f"--train.micro_batch={batch // 2}",
            f"--train.threads={threads}", f"--train.precision={dtype}", f"--bench.steps={steps}", *keys))
    speed = {name: statistics.median(run["tokens_per_s"] for run in runs[name]) for name in LAYOUTS}
    return [{"model": model, "dtype": dtype, "layout": name, "ranks": ranks, "threads": threads, "global_batch": batch,
             "rounds": rounds, "tokens_per_s": speed[name], "share_of_one_rank": speed[name] / speed["one rank"],
             "optimizer_and_communication": statistics.median(map(overhead, runs[name]))}
            for name, (ranks, threads, _) in LAYOUTS.items()]


def below_bars(rows: list) -> list:
    below = [f"{row['model']} {row['dtype']} {row['layout']}: {row['share_of_one_rank']:.1%} of one rank" for row in rows
             if row["share_of_one_rank"] < LEAST[row["layout"]]]
    return below + [f"{row['model']} {row['dtype']} {row['layout']}: {row['optimizer_and_communication']:.1%} in optimizer and "
                    "communication" for row in rows
                    if row["model"].endswith("150m") and row["optimizer_and_communication"] > MOST_OVERHEAD]


def main() -> int:
    parser = engine.parser(__doc__)
    engine.add_names(parser, "models", GLOBAL_BATCH)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    if engine.cpu()["cores"] < 2:
        sys.exit("scaling.py: needs two cores")
    results = engine.Results(options.name)
    print(f"{'model':<10} {'dtype':<5} {'layout':<9} {'tokens/s':>9} {'of one rank':>12} {'optimizer, communication':>25}")
    for dtype in options.dtype:
        for model in options.models:
            for row in results.take(f"{model} {dtype}", lambda: measure(model, dtype, options.rounds, options.steps)):
                print(f"{model:<10} {dtype:<5} {row['layout']:<9} {row['tokens_per_s']:>9.0f} {row['share_of_one_rank']:>12.1%} "
                      f"{row['optimizer_and_communication']:>25.1%}", flush=True)
    return results.finish(below_bars(results.rows))


if __name__ == "__main__":
    sys.exit(main())

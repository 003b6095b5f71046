#!/usr/bin/env python3
"""How long pipeline stages wait, measured, against the simulator with the measured times of each stage.

One rank and one thread to a core; needs as many idle cores as ranks. Fails where the two are more than ten points
apart."""
import argparse
import sys

import engine

MOST_APART = 0.10
LAYOUTS = {
    "red_tiny": ("--parallel.encoder_stages=1",),
    "dec_tiny": ("--parallel.decoder_stages=2",),
}
SCHEDULES = ("1f1b", "zb_h1", "interleaved")
MICRO_BATCHES = (2, 4, 8)


def arguments_of(model: str, layout: tuple, schedule: str, count: int) -> tuple:
    return ("--config", f"configs/bench/{model}.ini", *layout, f"--parallel.schedule={schedule}", "--train.micro_batch=1",
            f"--train.global_batch={count}", "--train.threads=1")


def cases():
    for model, layout in LAYOUTS.items():
        for schedule in SCHEDULES:
            if schedule == "interleaved" and model == "red_tiny":
                continue  # one stage of each kind: nothing is gained
            for count in MICRO_BATCHES:
                yield model, schedule, count, arguments_of(model, layout, schedule, count)
    # Of a model whose products are large; steps of some 15 s.
    yield "red_150m", "1f1b", 4, (*arguments_of("red_150m", LAYOUTS["red_tiny"], "1f1b", 4), "--bench.warmup_steps=1")


def measure(count: int, arguments: tuple, rounds: int, steps: int) -> dict:
    runs = [engine.bench_step(2, *arguments, f"--bench.steps={steps}") for _ in range(rounds)]
    row = {key: runs[0][key] for key in ("model", "dtype", "layout", "schedule", "global_batch", "window")}
    return {**row, "micro_batches": count, "rounds": rounds,
            **engine.medians([{key: run[key] for key in ("step_s", "bubble", "bubble_simulated")} for run in runs])}


def is_apart(row: dict) -> bool:
    return abs(row["bubble"] - row["bubble_simulated"]) > MOST_APART


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="write the figures to tests/bench/results/NAME.json")
    parser.add_argument("--rounds", type=int, default=3, help="figures are medians over them")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    if engine.cpu()["cores"] < 2:
        sys.exit("bubble.py: needs two cores")
    results = engine.Results(options.name)
    print(f"{'model':<10} {'schedule':<12} {'micro-batches':>13} {'step_s':>8} {'measured':>9} {'simulated':>9}")
    for model, schedule, count, arguments in cases():
        steps = min(options.steps, 2) if model.endswith("150m") else options.steps
        for row in results.take(f"{model} {schedule} {count} micro-batches",
                                lambda: measure(count, arguments, options.rounds, steps)):
            print(f"{model:<10} {schedule:<12} {count:>13} {row['step_s']:>8.3f} {row['bubble']:>9.1%} "
                  f"{row['bubble_simulated']:>9.1%}{'  APART' if is_apart(row) else ''}", flush=True)
    return results.finish([f"{row['model']} {row['schedule']} {row['micro_batches']} micro-batches: {row['bubble']:.1%}, simulated "
                           f"{row['bubble_simulated']:.1%}" for row in results.rows if is_apart(row)])


if __name__ == "__main__":
    sys.exit(main())

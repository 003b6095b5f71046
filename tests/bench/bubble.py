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


def cases(micro_batches):
    for model, layout in LAYOUTS.items():
        for schedule in SCHEDULES:
            if schedule == "interleaved" and model == "red_tiny":
                continue  # one stage of each kind: nothing is gained
            for count in micro_batches:
                yield model, schedule, count, (
                    "--config", f"configs/bench/{model}.ini", *layout, f"--parallel.schedule={schedule}",
                    "--train.micro_batch=1", f"--train.global_batch={count}", "--train.threads=1")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="write the figures to tests/bench/results/NAME.json")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    if engine.cpu()["cores"] < 2:
        sys.exit("bubble.py: needs two cores")
    print(f"{'model':<10} {'schedule':<12} {'micro-batches':>13} {'step_s':>8} {'measured':>9} {'simulated':>9}")
    rows, apart = [], []
    for model, schedule, count, arguments in cases((2, 4, 8)):
        result = engine.bench_step(2, *arguments, f"--bench.steps={options.steps}")
        row = {key: result[key] for key in ("model", "layout", "schedule", "global_batch", "window", "step_s", "bubble",
                                            "bubble_simulated")}
        rows.append(row)
        far = abs(row["bubble"] - row["bubble_simulated"]) > MOST_APART
        if far:
            apart.append(f"{model} {schedule} {count} micro-batches: {row['bubble']:.1%}, simulated {row['bubble_simulated']:.1%}")
        print(f"{model:<10} {schedule:<12} {count:>13} {row['step_s']:>8.3f} {row['bubble']:>9.1%} "
              f"{row['bubble_simulated']:>9.1%}{'  APART' if far else ''}", flush=True)
    return engine.finish(options.name, rows, apart)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Generation beside Transformers' `generate`: greedy, with a cache, in turns on the same cores, of the same model and of the nearest
that Transformers has.

The bars: at least 1.5 times the new tokens/s of the faster of the two at batch 1 and 16, and prompts at least at the rate of
training's forward, which is measured once a round for both batches."""
import functools
import itertools
import statistics
import sys

import engine
from training import DEC, PYTHON, RED, WIDE

PEER = engine.ROOT / "tests" / "bench" / "transformers_generate.py"
MODELS = {"red_150m": WIDE | RED, "dec_150m": WIDE | DEC}
BATCHES = (1, 16)
PEERS = ("same", "nearest")
LEAST = 1.5


def ours(model: str, dtype: str, batch: int, tokens: list, threads: int) -> dict:
    return engine.figures_of([engine.PROGRAM, "bench", "generate", "--json", "--config", f"configs/models/{model}.ini",
                              "--batch", batch, *tokens, f"--train.threads={threads}", f"--train.precision={dtype}"])


def peer(model: str, dtype: str, batch: int, tokens: list, threads: int, which: str) -> dict:
    sizes = [f"--{key}={value}" for key, value in MODELS[model].items()]
    return engine.figures_of([PYTHON, PEER, *sizes, "--batch", batch, "--dtype", dtype, "--threads", threads,
                              *(word.replace("-tokens", "_tokens") for word in tokens), *(["--nearest"] if which == "nearest" else [])])


def training_forward(model: str, dtype: str, threads: int) -> float:
    """Tokens/s of the forward half of a training step, the loss with its own gradient included."""
    result = engine.bench_step(1, "--config", f"configs/bench/{model}.ini", f"--train.precision={dtype}", f"--train.threads={threads}",
                               "--bench.steps=3")
    return result["window"] * result["global_batch"] / result["phase_s"]["forward"]


def measure(model: str, dtype: str, options) -> list:
    """A row for each batch."""
    threads = engine.cpu()["cores"]
    tokens = ["--prompt-tokens", str(options.prompt_tokens), "--new-tokens", str(options.new_tokens)]
    programs = {"forward": lambda: training_forward(model, dtype, threads)}
    for batch in BATCHES:
        programs["redllm", batch] = functools.partial(ours, model, dtype, batch, tokens, threads)
        for which in PEERS:
            programs[which, batch] = functools.partial(peer, model, dtype, batch, tokens, threads, which)
    runs = {name: [] for name in programs}
    for name in engine.in_turns(programs, options.rounds):
        runs[name].append(programs[name]())
    forward = statistics.median(runs["forward"])
    return [{"model": model, "dtype": dtype, "batch": batch, "threads": threads, "rounds": options.rounds,
             "prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens,
             **figures_of_batch({program: runs[program, batch] for program in ("redllm", *PEERS)}),
             "training_forward_tokens_per_s": forward} for batch in BATCHES]


def figures_of_batch(runs: dict) -> dict:
    """Medians, ours held against the faster peer."""
    def medians(key: str) -> dict:
        return {program: statistics.median(run[key] for run in runs[program]) for program in runs}

    decode, prefill = medians("decode_tokens_per_s"), medians("prefill_tokens_per_s")
    result = {"decode_tokens_per_s": decode["redllm"], "prefill_tokens_per_s": prefill["redllm"],
              "ratio": decode["redllm"] / max(decode[which] for which in PEERS), "gemm": runs["redllm"][0]["gemm"]}
    for which in PEERS:
        result |= {f"{which}_decode_tokens_per_s": decode[which], f"{which}_prefill_tokens_per_s": prefill[which],
                   f"{which}_model": f"{runs[which][0]['program']}, {runs[which][0]['model']}"}
    return result


def below_bars(rows: list) -> list:
    below = []
    for row in rows:
        what = f"{row['model']} {row['dtype']} batch {row['batch']}"
        prompts = row["prefill_tokens_per_s"] / row["training_forward_tokens_per_s"]
        if row["ratio"] < LEAST:
            below.append(f"{what}: {row['ratio']:.2f} x")
        if prompts < 1.0:
            below.append(f"{what}: prompts at {prompts:.2f} of training's forward")
    return below


def main() -> int:
    parser = engine.parser(__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    results = engine.Results(options.name)
    print(f"{'':<20} | {'new tokens/s':<34} | prompts, tokens/s\n"
          f"{'model':<9} {'dtype':<5} {'batch'} | {'redllm':>7} {'same':>8} {'nearest':>8} {'ratio':>6}  | {'redllm':>7} {'same':>7} "
          f"{'nearest':>8} {'training':>9}")
    for dtype, model in itertools.product(options.dtype, MODELS):
        for row in results.take(f"{model} {dtype}", lambda: measure(model, dtype, options)):
            print(f"{model:<9} {dtype:<5} {row['batch']:>5} | {row['decode_tokens_per_s']:>7.1f} {row['same_decode_tokens_per_s']:>8.1f} "
                  f"{row['nearest_decode_tokens_per_s']:>8.1f} {row['ratio']:>6.2f}  | {row['prefill_tokens_per_s']:>7.0f} "
                  f"{row['same_prefill_tokens_per_s']:>7.0f} {row['nearest_prefill_tokens_per_s']:>8.0f} "
                  f"{row['training_forward_tokens_per_s']:>9.0f}", flush=True)
    return results.finish(below_bars(results.rows))


if __name__ == "__main__":
    sys.exit(main())

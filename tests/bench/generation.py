#!/usr/bin/env python3
"""Generation beside Transformers' `generate`: greedy, with a cache, nearly the same model on the same cores, in turns.

The bars: at least 1.5 times its new tokens/s at batch 1 and 16, and prompts at least at the rate of training's forward."""
import itertools
import statistics
import sys

import engine
from training import DEC, PYTHON, RED, WIDE

PEER = engine.ROOT / "tests" / "bench" / "transformers_generate.py"
MODELS = {"red_150m": WIDE | RED, "dec_150m": WIDE | DEC}
BATCHES = (1, 16)
LEAST = 1.5


def ours(model: str, dtype: str, batch: int, tokens: list, threads: int) -> dict:
    return engine.figures_of([engine.PROGRAM, "bench", "generate", "--json", "--config", f"configs/models/{model}.ini",
                              "--batch", batch, *tokens, f"--train.threads={threads}", f"--train.precision={dtype}"])


def peer(model: str, dtype: str, batch: int, tokens: list, threads: int) -> dict:
    sizes = [f"--{key}={value}" for key, value in MODELS[model].items()]
    return engine.figures_of([PYTHON, PEER, *sizes, "--batch", batch, "--dtype", dtype, "--threads", threads,
                              *(word.replace("-tokens", "_tokens") for word in tokens)])


def training_forward(model: str, dtype: str, threads: int) -> float:
    """Tokens/s of the forward half of a training step, the loss with its own gradient included."""
    result = engine.bench_step(1, "--config", f"configs/bench/{model}.ini", f"--train.precision={dtype}", f"--train.threads={threads}",
                               "--bench.steps=3")
    return result["window"] * result["global_batch"] / result["phase_s"]["forward"]


def measure(model: str, dtype: str, batch: int, options) -> dict:
    threads = engine.cpu()["cores"]
    tokens = ["--prompt-tokens", str(options.prompt_tokens), "--new-tokens", str(options.new_tokens)]
    programs = {"redllm": lambda: ours(model, dtype, batch, tokens, threads), "peer": lambda: peer(model, dtype, batch, tokens, threads),
                "forward": lambda: training_forward(model, dtype, threads)}
    runs = {name: [] for name in programs}
    for name in engine.in_turns(programs, options.rounds):
        runs[name].append(programs[name]())
    (decode, peer_decode), (prefill, peer_prefill) = (
        [statistics.median(run[key] for run in runs[program]) for program in ("redllm", "peer")]
        for key in ("decode_tokens_per_s", "prefill_tokens_per_s"))
    return {"model": model, "dtype": dtype, "batch": batch, "threads": threads, "rounds": options.rounds,
            "prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens, "decode_tokens_per_s": decode,
            "peer_decode_tokens_per_s": peer_decode, "ratio": decode / peer_decode, "prefill_tokens_per_s": prefill,
            "peer_prefill_tokens_per_s": peer_prefill, "training_forward_tokens_per_s": statistics.median(runs["forward"]),
            "gemm": runs["redllm"][0]["gemm"], "peer": f"{runs['peer'][0]['program']}, {runs['peer'][0]['model']}"}


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
    print(f"{'model':<9} {'dtype':<5} {'batch':>5} | new tokens/s {'peer':>7} {'ratio':>6} | prompts/s {'peer':>7} {'training':>9}")
    for dtype, model, batch in itertools.product(options.dtype, MODELS, BATCHES):
        for row in results.take(f"{model} {dtype} batch {batch}", lambda: measure(model, dtype, batch, options)):
            print(f"{model:<9} {dtype:<5} {batch:>5} | {row['decode_tokens_per_s']:>12.1f} {row['peer_decode_tokens_per_s']:>7.1f} "
                  f"{row['ratio']:>6.2f} | {row['prefill_tokens_per_s']:>9.0f} {row['peer_prefill_tokens_per_s']:>7.0f} "
                  f"{row['training_forward_tokens_per_s']:>9.0f}", flush=True)
    return results.finish(below_bars(results.rows))


if __name__ == "__main__":
    sys.exit(main())

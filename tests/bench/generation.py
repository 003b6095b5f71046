#!/usr/bin/env python3
"""Generation beside Transformers' `generate`: greedy, with a cache, nearly the same model on the same cores, in turns.

The bars: at least 1.5 times its new tokens/s at batch 1 and 16, and prompts at least at the rate of training's forward."""
import json
import statistics
import subprocess
import sys

import engine
from training import DEC, PYTHON, RED, WIDE

PEER = engine.ROOT / "tests" / "bench" / "transformers_generate.py"
MODELS = {"red_150m": WIDE | RED, "dec_150m": WIDE | DEC}
BATCHES = (1, 16)
LEAST = 1.5


def ours(model: str, dtype: str, batch: int, tokens: list, threads: int) -> dict:
    command = [engine.PROGRAM, "bench", "generate", "--json", "--config", f"configs/models/{model}.ini", "--batch", str(batch),
               *tokens, f"--train.threads={threads}", f"--train.precision={dtype}"]
    return json_of(command)


def peer(model: str, dtype: str, batch: int, tokens: list, threads: int) -> dict:
    sizes = [f"--{key}={value}" for key, value in MODELS[model].items()]
    return json_of([PYTHON, PEER, *sizes, "--batch", str(batch), "--dtype", dtype, "--threads", str(threads),
                    *(word.replace("-tokens", "_tokens") for word in tokens)])


def json_of(command: list) -> dict:
    done = subprocess.run(command, capture_output=True, text=True, cwd=engine.ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def training_forward(model: str, dtype: str, threads: int) -> float:
    """Tokens/s of the forward half of a training step, the loss with its own gradient included."""
    result = engine.bench_step(1, "--config", f"configs/bench/{model}.ini", f"--train.precision={dtype}", f"--train.threads={threads}",
                               "--bench.steps=3")
    return result["window"] * result["global_batch"] / result["phase_s"]["forward"]


def measure(model: str, dtype: str, batch: int, tokens: list, threads: int, rounds: int) -> dict:
    programs = {"redllm": lambda: ours(model, dtype, batch, tokens, threads), "peer": lambda: peer(model, dtype, batch, tokens, threads),
                "forward": lambda: training_forward(model, dtype, threads)}
    runs = {name: [] for name in programs}
    for name in engine.in_turns(programs, rounds):
        runs[name].append(programs[name]())
    return runs


def main() -> int:
    parser = engine.parser(__doc__)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=64)
    options = parser.parse_args()
    tokens = ["--prompt-tokens", str(options.prompt_tokens), "--new-tokens", str(options.new_tokens)]
    threads = engine.cpu()["cores"]
    rows, below = [], []
    print(f"{'model':<9} {'dtype':<5} {'batch':>5} | new tokens/s {'peer':>7} {'ratio':>6} | prompts/s {'peer':>7} {'training':>9}")
    for dtype in options.dtype:
        for model in MODELS:
            for batch in BATCHES:
                runs = measure(model, dtype, batch, tokens, threads, options.rounds)
                (decode, peer_decode), (prefill, peer_prefill) = (
                    [statistics.median(run[key] for run in runs[program]) for program in ("redllm", "peer")]
                    for key in ("decode_tokens_per_s", "prefill_tokens_per_s"))
                forward = statistics.median(runs["forward"])
                row = {"model": model, "dtype": dtype, "batch": batch, "threads": threads, "rounds": options.rounds,
                       "prompt_tokens": options.prompt_tokens, "new_tokens": options.new_tokens, "decode_tokens_per_s": decode,
                       "peer_decode_tokens_per_s": peer_decode, "ratio": decode / peer_decode, "prefill_tokens_per_s": prefill,
                       "peer_prefill_tokens_per_s": peer_prefill, "training_forward_tokens_per_s": forward,
                       "gemm": runs["redllm"][0]["gemm"], "peer": f"{runs['peer'][0]['program']}, {runs['peer'][0]['model']}"}
                rows.append(row)
                print(f"{model:<9} {dtype:<5} {batch:>5} | {decode:>12.1f} {peer_decode:>7.1f} {row['ratio']:>6.2f} | {prefill:>9.0f} "
                      f"{peer_prefill:>7.0f} {forward:>9.0f}", flush=True)
                if row["ratio"] < LEAST:
                    below.append(f"{model} {dtype} batch {batch}: {row['ratio']:.2f} x")
                if prefill < forward:
                    below.append(f"{model} {dtype} batch {batch}: prompts at {prefill / forward:.2f} of training's forward")
    return engine.finish(options.name, rows, below)


if __name__ == "__main__":
    sys.exit(main())

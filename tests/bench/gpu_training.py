#!/usr/bin/env python3
"""A training step on a GPU beside PyTorch's, compiled, with fused attention, in bf16: the same model and batch on the same GPU,
in turns. Prints a table and the bars: 40 % MFU at 150M, 50 % from 1B on, 1.25 times PyTorch's tokens/s. Models that do not fit the
GPU by `redllm plan` are left out, with a line. Without a PyTorch that sees the GPU, redllm alone and no ratio; on a GPU of which no
peak is stated, no MFU. A run that fails, ours or PyTorch's, is a bar missed, but for cuDNN's where it is not linked. --out is written
after each run, whole: what ends this loses the run that goes on. tests/gpu/run_all.sh runs it."""
from __future__ import annotations

import argparse
import configparser
import json
import pathlib
import re
import statistics
import subprocess
import sys

import engine

PEER = engine.ROOT / "tests" / "bench" / "torch_step.py"
MODELS = ("red_150m", "dec_150m", "red_1b", "dec_1b", "red_2b", "dec_2b")
WITHOUT_CUDNN = 2  # how a program ends that is asked for it and has none
# Of the GPU's memory, what a plan may take: CUDA, cuBLAS and cuDNN take some beside it.
SHARE = 0.9
# Windows of 2,048 tokens of a step on 80 GiB, where both programs' activations fit.
BATCH_OF_80_GIB = {"150m": 16, "1b": 4, "2b": 2}
LIMIT_S = 1800  # of one run
PEER_KEYS = ("kind", "vocab_size", "d_model", "d_ff", "num_heads", "head_dim", "encoder_layers", "decoder_layers")


def model_of(name: str) -> dict:
    """The [model] section of a preset, with what it includes."""
    def read(path: pathlib.Path) -> dict:
        text = path.read_text()
        lines = text.splitlines()
        keys = {}
        for line in lines:
            if line.startswith("include"):
                keys |= read(path.parent / line.split("=", 1)[1].strip())
        own = configparser.ConfigParser()
        own.read_string("\n".join(line for line in lines if not line.startswith("include")))
        return keys | (dict(own["model"]) if own.has_section("model") else {})
    return read(engine.ROOT / "configs" / "models" / f"{name}.ini")


def memory_gib() -> float:
    done = subprocess.run(["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"], capture_output=True,
                          text=True, check=True)
    return float(done.stdout.split()[0]) / 1024


def batch_of(name: str) -> int:
    return max(1, int(BATCH_OF_80_GIB[name.split("_")[1]] * memory_gib() / 79))


def reason_of(complaints: str) -> str:
    """The line that says most: of memory that is full, of an error, or the last one."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    for pattern in (r"out of memory|OutOfMemory", r"^[\w.]*(Error|Exception)\b"):
        found = [line for line in lines if re.search(pattern, line, re.IGNORECASE if "memory" in pattern else 0)]
        if found:
            return found[-1][:300]
    return lines[-1][:300] if lines else "it said nothing"


def last_json(command: list, lib: str, key: str) -> tuple:
    """The object of the command's last line, which has this key, and None; or None, and {code, reason} where it fails. lib: a folder
    of libraries, or empty."""
    complaints = ""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=engine.ROOT, check=False,
                              env=engine.environment_with(lib), timeout=LIMIT_S)
        complaints = done.stderr
        failure = {"code": done.returncode, "reason": reason_of(complaints)}
        if done.returncode == 0:
            try:
                figures = json.loads(done.stdout.splitlines()[-1])
                if key in figures:
                    return figures, None
                failure["reason"] = f"its last line has no {key}"
            except (ValueError, IndexError, TypeError):
                failure["reason"] = "its last line is no JSON"
    except subprocess.TimeoutExpired:
        failure = {"code": None, "reason": f"no end within {LIMIT_S} s"}
    except OSError as error:
        failure = {"code": None, "reason": str(error)}
    print(f"{' '.join(map(str, command))}\n{ending(failure)}: {failure['reason']}\n{complaints[-2000:]}", file=sys.stderr, flush=True)
    return None, failure


def ending(failure: dict) -> str:
    code = failure["code"]
    if code is None:
        return "it did not run to its end"
    return f"it was killed by signal {-code}" if code < 0 else f"it ended with {code}"


def lacks_cudnn(failure: dict | None) -> bool:
    return failure is not None and failure["code"] == WITHOUT_CUDNN and "cuDNN" in failure["reason"]


def of_model(name: str, batch: int) -> list:
    return ["--json", "--config", f"configs/models/{name}.ini", "--data.window=2048", f"--train.micro_batch={batch}",
            f"--train.global_batch={batch}", "--train.precision=bf16"]


def ours(program: str, name: str, batch: int, steps: int, attention: str) -> list:
    return [program, "bench", "step", *of_model(name, batch), "--device", "cuda", f"--bench.steps={steps}", "--bench.warmup_steps=3",
            f"--train.attention={attention}"]


def planned_gib(options: argparse.Namespace, name: str, batch: int) -> tuple:
    """On the GPU, and None, or None and the failure; what a checkpoint is copied to lies in the host's memory."""
    plan, failure = last_json([options.program, "plan", *of_model(name, batch)], options.lib, "largest_rank_bytes")
    if failure is not None:
        return None, failure
    return (plan["largest_rank_bytes"] - plan["ranks"][0]["memory"]["checkpoint_copy"]) / 2**30, None


def peer(name: str, batch: int, steps: int) -> list:
    options = [f"--{key}={value}" for key, value in model_of(name).items() if key in PEER_KEYS]
    return [sys.executable, PEER, *options, "--window=2048", f"--batch={batch}", "--dtype=bf16", "--device=cuda", "--compile",
            f"--steps={steps}", "--warmup=3"]


def torch_sees_gpu() -> bool:
    probe = "import torch; assert torch.cuda.is_available()"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


def median_mfu(runs: list):
    """None where no peak is stated of the GPU."""
    shares = [figures["mfu"] for figures in runs if figures.get("mfu") is not None]
    return statistics.median(shares) if shares else None


def row_of(name: str, batch: int, runs: dict, failed: dict) -> dict:
    """Medians of the runs by program."""
    row = {"model": name, "batch": batch, "rounds": max(map(len, runs.values())), "failed": failed}
    for program, figures in runs.items():
        if figures:
            row[program] = {"tokens_per_s": statistics.median(f["tokens_per_s"] for f in figures), "first_run": figures[0],
                            "mfu": median_mfu(figures)}
    kept = [row[program] for program in ("own", "cudnn") if program in row]
    if kept:
        best = max(kept, key=lambda figures: figures["tokens_per_s"])
        row["tokens_per_s"] = best["tokens_per_s"]
        row["attention"] = "own" if best is row.get("own") else "cudnn"
        row["mfu"] = best["mfu"]
        if "torch" in row:
            row["ratio"] = best["tokens_per_s"] / row["torch"]["tokens_per_s"]
    return row


def measure(options: argparse.Namespace, name: str, with_peer: bool, keep) -> dict:
    """keep: is given the row as far as it has come, after each run."""
    batch = options.batch or batch_of(name)
    commands = {"own": ours(options.program, name, batch, options.steps, "own"),
                "cudnn": ours(options.program, name, batch, options.steps, "cudnn")}
    if with_peer:
        commands["torch"] = peer(name, batch, options.steps)
    runs = {program: [] for program in commands}
    failed = {}
    for _ in range(options.rounds):
        for program, command in commands.items():
            figures, failure = last_json(command, "" if program == "torch" else options.lib, "tokens_per_s")
            if program == "cudnn" and failure is None and figures.get("cudnn_passes") == 0:
                failure = {"code": WITHOUT_CUDNN, "reason": f"cuDNN took no attention: {figures.get('cudnn_refusal')}"}
            if failure is not None:
                failed[program] = failure
            else:
                runs[program].append(figures)
            keep({**row_of(name, batch, runs, failed), "unfinished": True})
    return row_of(name, batch, runs, failed)


def failures_of(row: dict) -> list:
    """What did not run and should have: no bar can be held to it."""
    below = []
    for attention in ("own", "cudnn"):
        failure = row["failed"].get(attention)
        if failure is not None and not (attention == "cudnn" and lacks_cudnn(failure)):
            below.append(f"{row['model']}: with attention {attention} {ending(failure)}: {failure['reason']}")
    peer_failure = row["failed"].get("torch")
    if peer_failure is not None:
        full = re.search("out of memory|OutOfMemory", peer_failure["reason"], re.IGNORECASE)
        what = (f"PyTorch ran out of memory at a batch of {row['batch']}" if full else f"PyTorch failed, {ending(peer_failure)}")
        below.append(f"{row['model']}: the ratio could not be judged: {what}: {peer_failure['reason']}")
    if "plan" in row["failed"]:
        below.append(f"{row['model']}: could not be judged: it cannot be planned: {row['failed']['plan']['reason']}")
    elif "tokens_per_s" not in row:
        below.append(f"{row['model']}: it did not run")
    return below


def below_bars(rows: list) -> list:
    below = []
    for row in rows:
        below += failures_of(row)
        if "tokens_per_s" not in row:
            continue
        least = 0.40 if row["model"].endswith("_150m") else 0.50
        if row["mfu"] is not None and row["mfu"] < least:
            below.append(f"{row['model']}: {row['mfu']:.1%} MFU, the bar is {least:.0%}")
        if row.get("ratio") is not None and row["ratio"] < 1.25:
            below.append(f"{row['model']}: {row['ratio']:.2f} times PyTorch, the bar is 1.25")
    return below


def not_judged(rows: list) -> list:
    ran = [row for row in rows if "tokens_per_s" in row]
    return ([f"{row['model']}: no MFU, as no peak is stated of this GPU" for row in ran if row["mfu"] is None] +
            [f"{row['model']}: no ratio, as there is no PyTorch that sees the GPU" for row in ran
             if row.get("ratio") is None and "torch" not in row["failed"]] +
            [f"{row['model']}: not with cuDNN's attention, which is not linked" for row in ran
             if lacks_cudnn(row["failed"].get("cudnn"))])


def line_of(row: dict) -> str:
    def shown(value, form: str) -> str:
        return "-" if value is None else format(value, form)
    torch = row.get("torch", {}).get("tokens_per_s")
    return (f"| {row['model']:<9} | {row['batch']:>5} | {shown(row.get('tokens_per_s'), '.0f'):>9} | {row.get('attention', '-'):<9} | "
            f"{shown(row.get('mfu'), '.1%'):>6} | {shown(torch, '.0f'):>9} | {shown(row.get('ratio'), '.2f'):>5} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    engine.add_names(parser, "models", MODELS)
    parser.add_argument("--program", default="build/release/redllm-cuda")
    parser.add_argument("--lib", default="", help="a folder of shared libraries that the program needs and this machine lacks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, help="windows of a step; by default what the GPU's memory takes")
    parser.add_argument("--out", help="a file for the rows, as JSON")
    options = parser.parse_args()
    with_peer = torch_sees_gpu()
    print("| model     | batch |    redllm | attention |    MFU |   PyTorch | ratio |\n"
          "|-----------|-------|-----------|-----------|--------|-----------|-------|")
    rows = []

    def keep(unfinished: list) -> None:
        if options.out:
            all_rows = rows + unfinished
            engine.replace_file(pathlib.Path(options.out), json.dumps(
                {"rows": all_rows, "below_bars": below_bars([row for row in all_rows if "unfinished" not in row])}) + "\n")

    there = memory_gib()
    for name in options.models:
        batch = options.batch or batch_of(name)
        needed, failure = planned_gib(options, name, batch)
        if failure is not None:
            rows.append({"model": name, "batch": batch, "failed": {"plan": failure}})
        elif needed > SHARE * there:
            print(f"left out: {name} takes {needed:.1f} GiB by its plan, and the GPU has {there:.1f}", flush=True)
            continue
        else:
            rows.append(measure(options, name, with_peer, lambda row: keep([row])))
        keep([])
        print(line_of(rows[-1]), flush=True)
    keep([])
    below = below_bars(rows)
    for text in not_judged(rows):
        print(f"bar not judged: {text}")
    print("\n".join(f"bar missed: {text}" for text in below) or "bars: none of those judged is missed")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())

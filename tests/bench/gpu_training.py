#!/usr/bin/env python3
"""A training step on a GPU beside PyTorch's, compiled, with fused attention, in bf16: the same model and batch on the same GPU, in
turns, each round of all models before the next. Prints a table and the bars: 40 % MFU at 150M, 50 % from 1B on, 1.25 times PyTorch's
tokens/s. Models that do not fit the GPU by `redllm plan` are left out, with a line; where PyTorch runs out of memory, both get half
the batch. Without a PyTorch that sees the GPU, or with --alone, no ratio; on a GPU of which no peak is stated, no MFU. A run that
fails, ours or PyTorch's, is a bar missed, but for cuDNN's where it is not linked. --out is written after each run, whole: what ends
this loses the run that goes on. tests/gpu/run_all.sh runs it."""
from __future__ import annotations

import argparse
import configparser
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time

import engine

PEER = engine.ROOT / "tests" / "bench" / "torch_step.py"
MODELS = ("red_150m", "dec_150m", "red_1b", "dec_1b", "red_2b", "dec_2b")  # by default; any of configs/models
WITHOUT_CUDNN = 2  # how a program ends that is asked for it and has none
# Of the GPU's memory, what a plan may take: CUDA, cuBLAS and cuDNN take some beside it.
SHARE = 0.9
# Windows of 2,048 tokens of a step on 80 GiB, where both programs' activations fit.
BATCH_OF_80_GIB = {"tiny": 16, "150m": 16, "1b": 4, "2b": 2}
LIMIT_S = 300  # of one run
LEAST_S = 5  # no run is begun with less
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
    return max(1, int(BATCH_OF_80_GIB.get(name.split("_")[-1], 1) * memory_gib() / 79))


def reason_of(complaints: str) -> str:
    """The line that says most: of memory that is full, of an error, or the last one."""
    lines = [line.strip() for line in complaints.splitlines() if line.strip()]
    for pattern in (r"out of memory|OutOfMemory", r"^[\w.]*(Error|Exception)\b"):
        found = [line for line in lines if re.search(pattern, line, re.IGNORECASE if "memory" in pattern else 0)]
        if found:
            return found[-1][:300]
    return lines[-1][:300] if lines else "it said nothing"


def last_json(command: list, lib: str, key: str, limit_s: float = LIMIT_S) -> tuple:
    """The object of the command's last line, which has this key, and None; or None, and {code, reason} where it fails. lib: folders
    of libraries, or empty."""
    complaints = ""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=engine.ROOT, check=False,
                              env=engine.environment_with(lib), timeout=limit_s)
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
        failure = {"code": None, "reason": f"no end within {limit_s:.0f} s"}
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


class OutOfTime(Exception):
    """What was to run next, or to end, did not within --seconds."""


class Model:
    """The runs of one preset: tokens/s and more by program, of as many rounds as there were."""

    def __init__(self, options: argparse.Namespace, name: str, batch: int, with_peer: bool) -> None:
        self.options, self.name, self.batch = options, name, batch
        self.programs = ["own", "cudnn"] + (["torch"] if with_peer else [])
        self.halved = []
        self.start()

    def start(self) -> None:
        self.runs = {program: [] for program in self.programs}
        self.failed = {}

    def command(self, program: str) -> list:
        if program == "torch":
            return peer(self.name, self.batch, self.options.steps)
        return ours(self.options.program, self.name, self.batch, self.options.steps, program)

    def run(self, program: str) -> None:
        left_s = self.options.until - time.monotonic()
        if left_s < LEAST_S:
            raise OutOfTime
        figures, failure = last_json(self.command(program), "" if program == "torch" else self.options.lib, "tokens_per_s",
                                     min(LIMIT_S, left_s))
        if failure is not None and failure["code"] is None and time.monotonic() >= self.options.until:
            raise OutOfTime
        if program == "cudnn" and failure is None and figures.get("cudnn_passes") == 0:
            failure = {"code": WITHOUT_CUDNN, "reason": f"cuDNN took no attention: {figures.get('cudnn_refusal')}"}
        if program == "torch" and ran_out_of_memory(failure) and self.batch > 1:
            self.halved.append({"batch": self.batch, "reason": failure["reason"]})
            print(f"halved: {self.name}: PyTorch ran out of memory at a batch of {self.batch}, both get {self.batch // 2}: "
                  f"{failure['reason']}", flush=True)
            self.batch //= 2
            self.start()
        elif failure is not None:
            self.failed[program] = failure
        else:
            self.runs[program].append(figures)

    def run_round(self, number: int, keep) -> None:
        """Each program once, begun by another in each round; again from the first where the batch was halved."""
        batch = None
        while batch != self.batch:
            batch = self.batch
            turns = list(engine.in_turns(self.programs, number + 1))[-len(self.programs):]
            for program in turns:
                self.run(program)
                keep()
                if batch != self.batch:
                    break

    def row(self) -> dict:
        done = all(self.runs[program] or program in self.failed for program in self.programs)
        return {**row_of(self.name, self.batch, self.runs, self.failed), **({"halved": self.halved} if self.halved else {}),
                **({} if done else {"unfinished": True})}


def ran_out_of_memory(failure: dict | None) -> bool:
    return failure is not None and re.search("out of memory|OutOfMemory", failure["reason"], re.IGNORECASE) is not None


def failures_of(row: dict) -> list:
    """What did not run and should have: no bar can be held to it."""
    below = []
    for attention in ("own", "cudnn"):
        failure = row["failed"].get(attention)
        if failure is not None and not (attention == "cudnn" and lacks_cudnn(failure)):
            below.append(f"{row['model']}: with attention {attention} {ending(failure)}: {failure['reason']}")
    peer_failure = row["failed"].get("torch")
    if peer_failure is not None:
        what = (f"PyTorch ran out of memory at a batch of {row['batch']}" if ran_out_of_memory(peer_failure) else
                f"PyTorch failed, {ending(peer_failure)}")
        below.append(f"{row['model']}: the ratio could not be judged: {what}: {peer_failure['reason']}")
    if "plan" in row["failed"]:
        below.append(f"{row['model']}: could not be judged: it cannot be planned: {row['failed']['plan']['reason']}")
    elif "tokens_per_s" not in row:
        below.append(f"{row['model']}: it did not run")
    return below


# By the size in a model's name; smaller ones cannot fill a GPU.
MFU_BARS = {"_150m": 0.40, "_1b": 0.50, "_2b": 0.50, "_4b": 0.50, "_8b": 0.50}


def below_bars(rows: list) -> list:
    below = []
    for row in rows:
        below += failures_of(row)
        if "tokens_per_s" not in row:
            continue
        least = next((bar for size, bar in MFU_BARS.items() if row["model"].endswith(size)), 0.0)
        if row["mfu"] is not None and row["mfu"] < least:
            below.append(f"{row['model']}: {row['mfu']:.1%} MFU, the bar is {least:.0%}")
        if row.get("ratio") is not None and row["ratio"] < 1.25:
            below.append(f"{row['model']}: {row['ratio']:.2f} times PyTorch, the bar is 1.25")
    return below


def not_judged(rows: list, alone: bool) -> list:
    ran = [row for row in rows if "tokens_per_s" in row]
    return ([f"{row['model']}: no MFU, as no peak is stated of this GPU" for row in ran if row["mfu"] is None] +
            [f"{row['model']}: no ratio, as there is no PyTorch that sees the GPU" for row in ran
             if not alone and row.get("ratio") is None and "torch" not in row["failed"]] +
            [f"{row['model']}: not with cuDNN's attention, which is not linked" for row in ran
             if lacks_cudnn(row["failed"].get("cudnn"))])


def line_of(row: dict) -> str:
    def shown(value, form: str) -> str:
        return "-" if value is None else format(value, form)
    torch = row.get("torch", {}).get("tokens_per_s")
    return (f"| {row['model']:<9} | {row['batch']:>5} | {shown(row.get('tokens_per_s'), '.0f'):>9} | {row.get('attention', '-'):<9} | "
            f"{shown(row.get('mfu'), '.1%'):>6} | {shown(torch, '.0f'):>9} | {shown(row.get('ratio'), '.2f'):>5} |")


def planned(options: argparse.Namespace, with_peer: bool) -> list:
    """Models that fit the GPU, and rows of those that cannot be planned."""
    there, found = memory_gib(), []
    for name in options.models:
        batch = options.batch or batch_of(name)
        needed, failure = planned_gib(options, name, batch)
        if failure is not None:
            found.append({"model": name, "batch": batch, "failed": {"plan": failure}})
        elif needed > SHARE * there:
            print(f"left out: {name} takes {needed:.1f} GiB by its plan, and the GPU has {there:.1f}", flush=True)
        else:
            found.append(Model(options, name, batch, with_peer))
    return found


def run_all(options: argparse.Namespace, models: list, keep) -> None:
    """Alone, our attention of all models comes first: it is what everything else is held against."""
    runners = [model for model in models if isinstance(model, Model)]
    try:
        if options.alone:
            for _ in range(options.rounds):
                for program in ("own", "cudnn"):
                    for model in runners:
                        model.run(program)
                        keep()
        else:
            for number in range(options.rounds):
                for model in runners:
                    model.run_round(number, keep)
    except OutOfTime:
        print(f"cut off: the {options.seconds:.0f} s are over", flush=True)
        keep()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="NAME", help=f"of configs/models; default: {', '.join(MODELS)}")
    parser.add_argument("--program", default="build/release/redllm-cuda")
    parser.add_argument("--lib", default="", help="folders of shared libraries that the program needs and this machine lacks")
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1e9, help="for all of it: what does not end by then is cut off")
    parser.add_argument("--batch", type=int, help="windows of a step; by default what the GPU's memory takes")
    parser.add_argument("--out", help="a file for the rows, as JSON")
    options = parser.parse_args()
    for name in options.models:
        if not (engine.ROOT / "configs" / "models" / f"{name}.ini").exists():
            parser.error(f"there is no configs/models/{name}.ini")
    options.until = time.monotonic() + options.seconds
    return options


def main() -> int:
    options = arguments()
    print("| model     | batch |    redllm | attention |    MFU |   PyTorch | ratio |\n"
          "|-----------|-------|-----------|-----------|--------|-----------|-------|", flush=True)
    models = planned(options, not options.alone and torch_sees_gpu())

    def rows() -> list:
        return [model.row() if isinstance(model, Model) else model for model in models]

    def judged() -> list:
        return [row for row in rows() if "unfinished" not in row]

    def keep() -> None:
        if options.out:
            engine.replace_file(pathlib.Path(options.out),
                                json.dumps({"rows": rows(), "below_bars": below_bars(judged())}) + "\n")

    keep()
    run_all(options, models, keep)
    for row in rows():
        print(line_of(row), flush=True)
    below = below_bars(judged())
    for text in not_judged(judged(), options.alone):
        print(f"bar not judged: {text}")
    print("\n".join(f"bar missed: {text}" for text in below) or "bars: none of those judged is missed")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Conversions of a checkpoint of 2 GiB: their time, and their peak of memory beside the largest tensor. Both checkpoints are of
a run with random tokens."""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import engine

WORK = engine.ROOT / "build" / "bench" / "conversion"
BEYOND_TENSOR_MIB = 1024
# Parameters and unfactored second moments in fp32: 2 GiB.
MODEL = ["--config", "configs/models/red_150m.ini", "--model.vocab_size=2048", "--model.encoder_layers=7", "--model.decoder_layers=7"]


def run(*command) -> dict:
    """Seconds and peak of memory of a command that must succeed."""
    words = [str(word) for word in command]
    begin = time.perf_counter()
    with open(WORK / "log", "w", encoding="utf-8") as log:
        process = subprocess.Popen(words, cwd=engine.ROOT, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{words}\nended with {os.waitstatus_to_exitcode(status)}:\n{(WORK / 'log').read_text(encoding='utf-8')}")
    return {"seconds": time.perf_counter() - begin, "peak_rss_mib": usage.ru_maxrss / 1024}


def make_checkpoints() -> list:
    words = [f"word{i % 997} number {i * 7919 % 104729}" for i in range(20000)]
    text = WORK / "text.jsonl"
    text.write_text("".join(json.dumps({"text": " ".join(words[begin:begin + 500])}) + "\n" for begin in range(0, len(words), 500)))
    run(engine.PROGRAM, "tokenizer", "train", "--out", WORK / "t.model", "--vocab-size", 2048, text)
    run(engine.PROGRAM, "data", "build", "--tokenizer", WORK / "t.model", "--out", WORK / "tokens", text)
    run(engine.PROGRAM, "train", *MODEL, f"--data.tokenizer={WORK / 't.model'}", "--data.window=64", f"--data.source.x.tokens={WORK / 'tokens'}",
        f"--train.run_dir={WORK / 'run'}", "--train.steps=2", "--schedule.kind=constant", "--train.global_batch=1", "--train.micro_batch=1",
        "--checkpoint.every=1", "--optimizer.factored=off")
    return sorted((WORK / "run" / "checkpoints").glob("step-*"))


def largest_tensor_mib(checkpoint: pathlib.Path) -> float:
    told = subprocess.run([engine.PROGRAM, "inspect", "checkpoint", checkpoint, "--json"], capture_output=True, text=True, check=True).stdout
    return max(tensor["shape"][0] * (tensor["shape"] + [1])[1] for tensor in json.loads(told)["tensors"]) * 4 / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", help="write the figures to tests/bench/results/NAME.json")
    options = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    checkpoints = make_checkpoints()
    mib = sum(file.stat().st_size for file in checkpoints[-1].rglob("*")) / 2**20
    largest = largest_tensor_mib(checkpoints[-1])
    convert = [engine.PROGRAM, "convert"]
    conversions = {
        "to-huggingface": ["--checkpoint", checkpoints[-1], "--out", WORK / "exported"],
        "from-huggingface": ["--model", WORK / "exported", "--out", WORK / "imported"],
        "consolidate": ["--checkpoint", checkpoints[-1], "--out", WORK / "one.h5", "--optimizer-state"],
        "average": ["--out", WORK / "mean", *checkpoints],
    }
    rows, below = [], []
    for name, words in conversions.items():
        row = {"measure": name, "checkpoint_mib": mib, "largest_tensor_mib": largest, **run(*convert, name, *words)}
        rows.append(row)
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()), flush=True)
        if row["peak_rss_mib"] > largest + BEYOND_TENSOR_MIB:
            below.append(f"{name}: {row['peak_rss_mib']:.0f} MiB, the largest tensor has {largest:.0f}")
    shutil.rmtree(WORK)
    return engine.finish(options.name, rows, below)


if __name__ == "__main__":
    sys.exit(main())

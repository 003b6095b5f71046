#!/usr/bin/env python3
"""`redllm data build`: its speed beside SentencePiece alone, in turns, its memory on an input of some GiB, and how long training
on what it built waits for samples.

Speed is of the text as it is; for memory the text is repeated until it is large enough. Training is red_tiny's, whose steps are short."""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import engine

WORK = engine.ROOT / "build" / "bench"
ALONE = engine.ROOT / "build" / "release" / "tests" / "bench" / "sentencepiece_alone"
LEAST_RATIO, MOST_MIB, MOST_WAIT = 0.9, 1024, 0.005


def run(*command) -> tuple[float, float]:
    """Seconds and peak RSS in MiB of a command that must succeed."""
    begin = time.perf_counter()
    with open(WORK / "log", "w+b") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            log.seek(0)
            raise engine.Failed(f"{command} failed:\n{log.read().decode(errors='replace')}")
    return time.perf_counter() - begin, usage.ru_maxrss / 1024


def default_text() -> list[pathlib.Path]:
    """What quickstart learns from."""
    folder = WORK / "text"
    if not folder.exists():
        subprocess.run(["python3", "launch/quickstart_text.py", "--out", folder], cwd=engine.ROOT, check=True)
    return sorted(folder.glob("*.jsonl"))


def tokenizer(files: list[pathlib.Path], size: int) -> pathlib.Path:
    path = WORK / f"tokenizer_{size}.model"
    run(engine.PROGRAM, "tokenizer", "train", "--out", path, "--vocab-size", size, "--sample-mib", 16, *files)
    return path


def repeated(files: list[pathlib.Path], num_bytes: int) -> pathlib.Path:
    path = WORK / "large.jsonl"
    with open(path, "wb") as out:
        while out.tell() < num_bytes:
            for file in files:
                out.write(file.read_bytes())
    return path


def speed(model: pathlib.Path, files: list[pathlib.Path], rounds: int, threads: int) -> dict:
    build, alone, text = [], [], 0
    for _ in range(rounds):
        build.append(run(engine.PROGRAM, "data", "build", "--tokenizer", model, "--out", WORK / "tokens", "--workers", threads,
                         *files)[0])
        result = engine.figures_of([ALONE, model, threads, *files])
        alone.append(result["seconds"])
        text = result["bytes"]
    ours, peer = (text / statistics.median(times) / 2**20 for times in (build, alone))
    return {"text_mib": text / 2**20, "threads": threads, "rounds": rounds, "build_mib_per_s": ours,
            "sentencepiece_mib_per_s": peer, "ratio": ours / peer}


def waiting(model: pathlib.Path, files: list[pathlib.Path], vocab_size: int, threads: int) -> dict:
    """The share of its steps' time that training waits for samples."""
    run_dir, tokens = WORK / "run", WORK / "tokens"
    shutil.rmtree(run_dir, ignore_errors=True)
    run(engine.PROGRAM, "data", "build", "--tokenizer", model, "--out", tokens, "--workers", threads, *files)
    run(engine.PROGRAM, "train", "--config=configs/bench/red_tiny.ini", f"--model.vocab_size={vocab_size}", f"--train.threads={threads}",
        f"--data.tokenizer={model}", f"--data.source.text.tokens={tokens}", f"--train.run_dir={run_dir}", "--train.steps=60",
        "--schedule.kind=constant", "--train.log_every=1", "--checkpoint.every=0")
    steps = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()][1:]  # the first one warms up
    whole = sum(step["step_s"] for step in steps)
    return {"model": "red_tiny", "threads": threads, "steps": len(steps), "step_s": whole / len(steps),
            "data_wait": sum(step["phase_s"]["data"] for step in steps) / whole}


def memory(model: pathlib.Path, files: list[pathlib.Path], gib: float, threads: int) -> dict:
    large = repeated(files, int(gib * 2**30))
    seconds, mib = run(engine.PROGRAM, "data", "build", "--tokenizer", model, "--out", WORK / "tokens", "--workers", threads, large)
    size = large.stat().st_size
    large.unlink()
    for path in WORK.glob("tokens*"):
        path.unlink()
    return {"input_mib": size / 2**20, "threads": threads, "seconds": seconds, "input_mib_per_s": size / 2**20 / seconds,
            "peak_rss_mib": mib}


def below_bars(rows: dict) -> list:
    below = []
    if "speed" in rows and rows["speed"]["ratio"] < LEAST_RATIO:
        below.append(f"data build encodes {rows['speed']['ratio']:.2f} x what SentencePiece alone does")
    if "waiting" in rows and rows["waiting"]["data_wait"] > MOST_WAIT:
        below.append(f"training waits for data for {rows['waiting']['data_wait']:.2%} of its time")
    if "memory" in rows and rows["memory"]["peak_rss_mib"] > MOST_MIB:
        below.append(f"data build takes {rows['memory']['peak_rss_mib']:.0f} MiB")
    return below


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", nargs="+", type=pathlib.Path, help="JSON Lines (default: what quickstart learns from)")
    parser.add_argument("--vocab-size", type=int, default=32768)
    parser.add_argument("--gib", type=float, default=2.0, help="input for the memory figure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", help="write the figures to tests/bench/results/NAME.json")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cmake", "--build", "build/release", "--target", "redllm", "sentencepiece_alone"], cwd=engine.ROOT,
                   check=True, stdout=subprocess.DEVNULL)
    files = options.text or default_text()
    try:
        model = tokenizer(files, options.vocab_size)
    except engine.Failed as failure:
        sys.exit(str(failure))
    threads = engine.cpu()["cores"]
    results = engine.Results(options.name)
    for name, measure in (("speed", lambda: speed(model, files, options.rounds, threads)),
                          ("waiting", lambda: waiting(model, files, options.vocab_size, threads)),
                          ("memory", lambda: memory(model, files, options.gib, threads))):
        for row in results.take(name, lambda: {"measure": name, **measure()}):
            print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()),
                  flush=True)
    return results.finish(below_bars({row["measure"]: row for row in results.rows}))


if __name__ == "__main__":
    sys.exit(main())

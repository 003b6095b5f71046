#!/usr/bin/env python3
"""Checkpoints: bytes/s of writing beside `dd` with fsync, and of reading beside `dd`, both from the disk, in the same folder,
in turns; the time to open the index of 8B by 256 writers; and how long a step of 150M stands still for a save that is
written behind it."""
import argparse
import json
import pathlib
import random
import re
import shutil
import statistics
import string
import subprocess
import sys
import time

import engine

WORK = engine.ROOT / "build" / "bench" / "checkpoint"
SPEED = engine.ROOT / "build" / "release" / "tests" / "bench" / "checkpoint_speed"
WRITE_OF_DD, READ_OF_DD, OPEN_S = 0.8, 0.7, 1.0


def run(*command) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=engine.ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"{command}\nended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def seconds_of(*command) -> float:
    begin = time.perf_counter()
    run(*command)
    return time.perf_counter() - begin


def dd(path: pathlib.Path, mib: int) -> dict:
    """Seconds to write so much, fsync included, and to read it again after the page cache has dropped it."""
    write_s = seconds_of("dd", "if=/dev/zero", f"of={path}", "bs=1M", f"count={mib}", "conv=fsync")
    run("dd", f"of={path}", "oflag=nocache", "conv=notrunc,fdatasync", "count=0")
    read_s = seconds_of("dd", f"if={path}", "of=/dev/null", "bs=8M")
    path.unlink()
    return {"write_s": write_s, "read_s": read_s}


def speed(divisor: int, ranks: int, rounds: int) -> dict:
    ours, peer = [], []
    for _ in range(rounds):
        ours.append(json.loads(run(engine.ROOT / "launch" / "local.sh", "-n", ranks, SPEED, WORK / "speed", divisor).splitlines()[-1]))
        shutil.rmtree(WORK / "speed")
        mib = ours[0]["num_bytes"] // 2**20
        peer.append(dd(WORK / "dd", mib))
    def median(of, key):
        return statistics.median(figures[key] for figures in of)
    rate = ours[0]["num_bytes"] / 2**20
    return {"measure": "speed", "mib": rate, "ranks": ranks, "rounds": rounds,
            "write_mib_per_s": rate / median(ours, "write_s"), "dd_write_mib_per_s": mib / median(peer, "write_s"),
            "read_mib_per_s": rate / median(ours, "read_s"), "dd_read_mib_per_s": mib / median(peer, "read_s"),
            "verify_mib_per_s": rate / median(ours, "verify_s"), "open_8b_s": median(ours, "open_8b_s")}


def stall(steps: int) -> dict:
    """Of a run of RedLLM 150M on random words: seconds of its steps while nothing is saved, and what a save adds to them: the
    copy, which a step waits for, and the slowest step beside the writing."""
    folder = WORK / "stall"
    text = folder / "text.jsonl"
    folder.mkdir(parents=True)
    chance = random.Random(1)
    words = ["".join(chance.choices(string.ascii_lowercase, k=chance.randrange(3, 9))) for _ in range(60000)]
    with open(text, "w") as out:
        for begin in range(0, len(words), 500):
            out.write(json.dumps({"text": " ".join(words[begin:begin + 500])}) + "\n")
    run(engine.PROGRAM, "tokenizer", "train", "--out", folder / "t.model", "--vocab-size", 32768, text)
    run(engine.PROGRAM, "data", "build", "--tokenizer", folder / "t.model", "--out", folder / "tokens", text)
    log = run(engine.PROGRAM, "train", "--config", "configs/models/red_150m.ini",
              f"--data.tokenizer={folder / 't.model'}", "--data.window=512", f"--data.source.x.tokens={folder / 'tokens'}",
              f"--train.run_dir={folder / 'run'}", f"--train.steps={steps}", "--schedule.kind=constant",
              "--train.global_batch=4", "--train.micro_batch=4", f"--checkpoint.every={steps // 2}")
    stood = [float(value) for value in re.findall(r"for ([0-9.]+) s of which training stood still", log)]
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    quiet = statistics.median(line["step_s"] for line in lines[1:steps // 2])
    beside = max(line["step_s"] for line in lines[steps // 2:steps // 2 + 3])
    return {"measure": "stall", "step_s": quiet, "slowest_step_beside_a_save_s": beside, "stood_still_s": max(stood),
            "saved_mib": sum(file.stat().st_size for file in (folder / "run").rglob("shard-*")) / 2**20 / len(stood)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width-divisor", type=int, default=8, help="of RedLLM 8B's widths: 8 makes 1.1 GiB (default: 8)")
    parser.add_argument("--ranks", type=int, default=2, help="that write and read it together (default: 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12, help="of the run with 150M parameters; 0: no such run")
    parser.add_argument("--name", help="write the figures to tests/bench/results/NAME.json")
    options = parser.parse_args()
    subprocess.run(["cmake", "--build", "build/release", "--target", "redllm", "checkpoint_speed"], cwd=engine.ROOT,
                   check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    rows = [speed(options.width_divisor, options.ranks, options.rounds)]
    if options.steps:
        rows.append(stall(options.steps))
    for row in rows:
        print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()))
    below = []
    for what, share in (("write", WRITE_OF_DD), ("read", READ_OF_DD)):
        ours, peer = rows[0][f"{what}_mib_per_s"], rows[0][f"dd_{what}_mib_per_s"]
        if ours < share * peer:
            below.append(f"{what}: {ours:.0f} MiB/s, dd {peer:.0f}")
    if options.steps:
        cost = rows[1]["stood_still_s"] + rows[1]["slowest_step_beside_a_save_s"] - rows[1]["step_s"]
        if cost > rows[1]["step_s"]:
            below.append(f"a save costs steps of {rows[1]['step_s']:.2f} s another {cost:.2f} s")
    if rows[0]["open_8b_s"] > OPEN_S:
        below.append(f"the index of 8B opens in {rows[0]['open_8b_s']:.2f} s")
    shutil.rmtree(WORK)
    return engine.finish(options.name, rows, below)


if __name__ == "__main__":
    sys.exit(main())

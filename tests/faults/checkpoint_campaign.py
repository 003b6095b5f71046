#!/usr/bin/env python3
"""Faults at random instants of saves under four ranks: kills, stops, full and failing disks, damaged and lost files, two runs
in one folder. After each, the same command without the fault must finish from a whole checkpoint, with the digest that an
undisturbed run has. Results are added to a table; a campaign that was interrupted goes on where it was.

    tests/faults/checkpoint_campaign.py --count 120      # about ten minutes
"""
import argparse
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("REDLLM_BUILD", ROOT / "build" / "release"))
PROGRAM = BUILD / "redllm"
SHIM = BUILD / "tests" / "faults" / "libfailing_files.so"
LOCAL = ROOT / "launch" / "local.sh"
RANKS, STEPS, MOST_SECONDS = 4, 40, 30

CONFIGURATION = """[model]
kind = red
vocab_size = 320
d_model = 32
d_ff = 64
num_heads = 2
head_dim = 16
encoder_layers = 2
decoder_layers = 2
[parallel]
data = 2
encoder_stages = 1
[train]
steps = {steps}
global_batch = 4
micro_batch = 1
threads = 1
precision = fp32
timeout_s = 5
[schedule]
kind = constant
[checkpoint]
every = 1
keep_last = 4
[data]
tokenizer = t.model
window = 64
[data.source.text]
tokens = text
"""


def run(command: list, folder: pathlib.Path, seconds: float = 120, **more) -> subprocess.CompletedProcess:
    return subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=seconds, check=False, **more)


def make_inputs(folder: pathlib.Path) -> None:
    words = "the run goes on whatever becomes of its disk a rank or a file so that nobody is called at night".split()
    chance = random.Random(1)
    with open(folder / "text.jsonl", "w") as file:
        for _ in range(60):
            file.write(json.dumps({"text": " ".join(chance.choices(words, k=150))}) + "\n")
    (folder / "run.ini").write_text(CONFIGURATION.format(steps=STEPS))
    for command in (["tokenizer", "train", "--out", "t.model", "--vocab-size", "320", "text.jsonl"],
                    ["data", "build", "--tokenizer", "t.model", "--out", "text", "text.jsonl"]):
        done = run([PROGRAM, *command], folder)
        if done.returncode != 0:
            sys.exit(f"redllm {command[0]}: {done.stderr}")


class Run:
    """Training in a folder of its own."""

    def __init__(self, inputs: pathlib.Path, name: str):
        self.inputs, self.name = inputs, name
        self.checkpoints = inputs / name / "checkpoints"
        self.process = None

    def command(self) -> list:
        return [str(LOCAL), "-n", str(RANKS), str(PROGRAM), "train", "--config=run.ini", f"--train.run_dir={self.name}"]

    def start(self, **environment) -> None:
        self.log = open(self.inputs / f"{self.name}.log", "a")
        self.process = subprocess.Popen(self.command(), cwd=self.inputs, stdout=self.log, stderr=self.log, start_new_session=True,
                                        env={**os.environ, **{key: str(value) for key, value in environment.items()}})

    def told(self) -> str:
        return (self.inputs / f"{self.name}.log").read_text()

    def ranks(self) -> list:
        """Process ids, by rank as far as the system tells."""
        pids = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == str(PROGRAM).encode() and f"--train.run_dir={self.name}".encode() in words:
                pids.append(int(entry.name))
        return sorted(pids)

    def wait_for_saves(self, count: int) -> None:
        end = time.time() + 60
        while time.time() < end and self.process.poll() is None:
            if self.newest_step() >= count:
                return
            time.sleep(0.005)

    def newest_step(self) -> int:
        steps = [int(path.name[5:]) for path in self.checkpoints.glob("step-*") if path.name[5:].isdigit()]
        return max(steps, default=0)

    def newest(self) -> pathlib.Path:
        return self.checkpoints / f"step-{self.newest_step():08d}"

    def wait(self, seconds: float):
        """Exit code, or None past the deadline."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        for pid in self.ranks():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def digest(self) -> str:
        done = run([PROGRAM, "inspect", "checkpoint", self.name, "--digest"], self.inputs)
        return done.stdout.strip() if done.returncode == 0 else f"none: {done.stderr.strip()}"


# Faults. Each begins with a run under way that has made some saves, and returns when nothing of it runs any more.
def signal_some(run_: Run, chance, number: int, everybody: bool) -> None:
    pids = run_.ranks()
    for pid in pids if everybody else [chance.choice(pids)] if pids else []:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def kill_one(run_: Run, chance) -> None:
    signal_some(run_, chance, signal.SIGKILL, False)


def kill_all(run_: Run, chance) -> None:
    signal_some(run_, chance, signal.SIGKILL, True)


def stop_one(run_: Run, chance) -> None:
    """The others must give up by themselves; what is stopped is then killed, as a person would."""
    signal_some(run_, chance, signal.SIGSTOP, False)
    end = time.time() + MOST_SECONDS
    while time.time() < end and len(run_.ranks()) > 1:
        time.sleep(0.1)
    if len(run_.ranks()) > 1:
        raise RuntimeError("ranks still wait for one that was stopped")


def second_run(run_: Run, chance) -> None:
    """A second run in the same folder; both are killed in the midst of it."""
    other = subprocess.Popen(run_.command(), cwd=run_.inputs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    time.sleep(chance.uniform(0.3, 1.0))
    run_.kill()
    os.killpg(other.pid, signal.SIGKILL) if other.poll() is None else None
    other.wait()


def damage(change):
    """The run is killed; then `change` is done to a file of its newest checkpoint."""
    def fault(run_: Run, chance) -> None:
        run_.kill()
        files = sorted(path for path in run_.newest().glob("*") if path.is_file() and path.stat().st_size > 0)
        change(chance.choice(files), chance)
    return fault


def flip_bit(path: pathlib.Path, chance) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path: pathlib.Path, chance) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def disk(call: str, number: int, lasts: int) -> dict:
    return {"FAULT_CALL": call, "FAULT_ERRNO": number, "FAULT_LASTS": lasts}


FAULTS = {
    "SIGKILL of one rank": kill_one,
    "SIGKILL of all ranks": kill_all,
    "SIGSTOP of one rank": stop_one,
    "two runs in one folder": second_run,
    "a flipped bit": damage(flip_bit),
    "truncation": damage(truncate),
    "a lost file": damage(lambda path, chance: path.unlink()),
    "disk full at reservation": disk("fallocate", errno.ENOSPC, 0),
    "disk full from now on": disk("fallocate", errno.ENOSPC, 1),
    "disk full at write": disk("pwrite", errno.ENOSPC, 0),
    "short write": disk("pwrite", 0, 0),
    "EIO at write": disk("pwrite", errno.EIO, 0),
    "EIO at fsync": disk("fsync", errno.EIO, 0),
    "EIO at rename": disk("rename", errno.EIO, 0),
    "EACCES at rename, from now on": disk("rename", errno.EACCES, 1),
    "quota at write": disk("pwrite", errno.EDQUOT, 0),
}


def inject(fault, run_: Run, chance) -> dict:
    """One fault in a fresh run, and the way back; what happened."""
    begin = time.time()
    if isinstance(fault, dict):
        # Index and renames are rank 0's; a shard takes a few calls for each save.
        rank = 0 if fault["FAULT_CALL"] == "rename" else chance.randrange(RANKS)
        run_.start(LD_PRELOAD=SHIM, FAULT_RANK=rank, FAULT_AFTER=chance.randrange(20), **fault)
        code = run_.wait(120)
    else:
        run_.start()
        run_.wait_for_saves(chance.randrange(1, STEPS // 2))
        time.sleep(chance.uniform(0.0, 0.05))
        fault(run_, chance)
        code = run_.wait(MOST_SECONDS)
    if code is None:
        run_.kill()
        return {"outcome": "hung", "seconds": time.time() - begin}
    run_.kill()
    if isinstance(fault, dict) and fault["FAULT_ERRNO"] and os.strerror(fault["FAULT_ERRNO"]) not in run_.told():
        return {"outcome": "the fault was not told", "exit_code": code}
    before = run_.newest_step()
    begin = time.time()
    run_.start()
    again = run_.wait(120)
    run_.kill()
    return {"exit_code": code, "resumed_from_at_most": before, "exit_code_again": again, "recovery_s": round(time.time() - begin, 2),
            "set_aside": sorted(path.name.split(".", 1)[1] for path in run_.checkpoints.glob("step-*.*"))}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40, help="faults in the table when it ends (default: 40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=pathlib.Path, help="JSON lines, added to; default: none is kept")
    options = parser.parse_args()
    done = []
    if options.table and options.table.exists():
        done = [json.loads(line) for line in options.table.read_text().splitlines()]
    unrecovered = sum(row["outcome"] != "recovered" for row in done)
    with tempfile.TemporaryDirectory(prefix="redllm-faults-") as folder:
        inputs = pathlib.Path(folder)
        make_inputs(inputs)
        whole = Run(inputs, "whole")
        whole.start()
        if whole.wait(120) != 0:
            sys.exit(f"the undisturbed run failed:\n{whole.told()}")
        expected = whole.digest()
        names = list(FAULTS)
        for number in range(len(done), options.count):
            chance = random.Random(f"{options.seed} {number}")
            name = names[number % len(names)]
            disturbed = Run(inputs, f"run{number}")
            try:
                result = inject(FAULTS[name], disturbed, chance)
            except Exception as error:  # of a fault: it is told, and the campaign goes on
                disturbed.kill()
                result = {"outcome": f"failed: {error}"}
            if "outcome" not in result:
                result["outcome"] = "recovered" if result["exit_code_again"] == 0 and disturbed.digest() == expected else "not recovered"
            row = {"number": number, "fault": name, **result}
            print(json.dumps(row), flush=True)
            if options.table:
                with open(options.table, "a") as table:
                    table.write(json.dumps(row) + "\n")
            if row["outcome"] == "recovered":
                shutil.rmtree(inputs / disturbed.name)
            else:
                unrecovered += 1
                print(disturbed.told()[-4000:], file=sys.stderr)
    print(f"{max(options.count, len(done))} faults, {unrecovered} unrecovered")
    return 1 if unrecovered else 0


if __name__ == "__main__":
    sys.exit(main())

"""What the campaigns of faults have in common: small inputs, processes of a run by the system's own account, and a table that
grows by one row with each fault, so that a campaign that was interrupted goes on where it was."""
import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("REDLLM_BUILD", ROOT / "build" / "release")).resolve()
PROGRAM = BUILD / "redllm"
SHIM = BUILD / "tests" / "faults" / "libfailing_files.so"
LOCAL = ROOT / "launch" / "local.sh"
SUPERVISE = ROOT / "launch" / "supervise.sh"
TWO_HOSTS = ROOT / "tests" / "faults" / "two_hosts.sh"

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


def make_inputs(folder: pathlib.Path, steps: int = 40, documents: int = 60) -> None:
    words = "the run goes on whatever becomes of its disk a rank or a file so that nobody is called at night".split()
    chance = random.Random(1)
    with open(folder / "text.jsonl", "w", encoding="utf-8") as file:
        for _ in range(documents):
            file.write(json.dumps({"text": " ".join(chance.choices(words, k=150))}) + "\n")
    (folder / "run.ini").write_text(CONFIGURATION.format(steps=steps), encoding="utf-8")
    for command in (["tokenizer", "train", "--out", "t.model", "--vocab-size", "320", "text.jsonl"],
                    ["data", "build", "--tokenizer", "t.model", "--out", "text", "text.jsonl"]):
        done = run([PROGRAM, *command], folder)
        if done.returncode != 0:
            sys.exit(f"redllm {command[0]}: {done.stderr}")


def processes_with(word: bytes) -> dict:
    """Processes that live and have this word on their command line: their words, by process id."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and int(entry.name) != os.getpid() and word in words:
            found[int(entry.name)] = words
    return found


def processes_of(mark: str) -> dict:
    """The same of those whose environment has this, which whatever a run starts inherits, however it calls itself."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
    return found


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


class Run:
    """Training in a folder of its own, `name` below `inputs`, started by `command` in a session of its own."""

    def __init__(self, inputs: pathlib.Path, name: str):
        self.inputs, self.name = inputs, name
        self.folder = inputs / name
        self.checkpoints = self.folder / "checkpoints"
        self.process = None
        self.mark = f"CAMPAIGN_RUN={self.folder}"

    def command(self) -> list:
        raise NotImplementedError

    def start(self, **environment) -> None:
        with open(self.inputs / f"{self.name}.log", "a", encoding="utf-8") as log:
            self.process = subprocess.Popen([str(word) for word in self.command()], cwd=self.inputs, stdout=log, stderr=log,
                                            start_new_session=True,
                                            env={**os.environ, **dict([self.mark.split("=", 1)]), **{key: str(value) for key, value in environment.items()}})

    def told(self) -> str:
        return (self.inputs / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def processes(self) -> dict:
        """All of its own, by what they were called with or what they inherited: daemons, shells and sleeps too."""
        return {**processes_of(self.mark), **processes_with(f"--train.run_dir={self.name}".encode())}

    def ranks(self) -> list:
        """Process ids, by rank as far as the system tells."""
        return sorted(pid for pid, words in self.processes().items() if words[0] == str(PROGRAM).encode())

    def wait(self, seconds: float):
        """Exit code, or None past the deadline."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        for pid in self.processes():
            send(pid, signal.SIGKILL)
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    def digest(self) -> str:
        done = run([PROGRAM, "inspect", "checkpoint", self.name, "--digest"], self.inputs)
        return done.stdout.strip() if done.returncode == 0 else f"none: {done.stderr.strip()}"


def conduct(description: str, names: list, prepare, attempt, default_count: int, steps: int = 40, documents: int = 60) -> int:
    """Faults `names` in turn until the table has as many rows as asked for. prepare(inputs) once; attempt(inputs, number, name,
    chance) gives the run and what is to be known of it, with an "outcome": "recovered", or what is wrong; or None: not here."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=default_count, help=f"faults in the table when it ends (default: {default_count})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="begins no further fault behind so many; call it again to go on")
    parser.add_argument("--only", default="", help="faults with this in their names")
    parser.add_argument("--table", type=pathlib.Path, help="JSON lines, added to; default: none is kept")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is under way is cleared away
    begin = time.time()
    done = []
    if options.table and options.table.exists():
        done = [json.loads(line) for line in options.table.read_text().splitlines()]
    names = [name for name in names if options.only in name]
    number = max((row["number"] + 1 for row in done), default=0)
    with tempfile.TemporaryDirectory(prefix="redllm-faults-") as folder:
        inputs = pathlib.Path(folder)
        make_inputs(inputs, steps, documents)
        prepare(inputs)
        while names and len(done) < options.count and time.time() < begin + options.seconds:
            name = names[number % len(names)]
            disturbed, result = attempt(inputs, number, name, random.Random(f"{options.seed} {number}"))
            number += 1
            if result is None:
                names.remove(name)
                print(f"left out, because this machine does not let us: {name}", flush=True)
                continue
            done.append({"number": number - 1, "fault": name, **result})
            print(json.dumps(done[-1]), flush=True)
            if options.table:
                with open(options.table, "a", encoding="utf-8") as table:
                    table.write(json.dumps(done[-1]) + "\n")
            if result["outcome"] == "recovered":
                shutil.rmtree(disturbed.folder)
            else:
                print(disturbed.told()[-6000:], file=sys.stderr)
    unrecovered = sum(row["outcome"] != "recovered" for row in done)
    for key in ("detect_s", "recover_s", "recovery_s"):
        times = [row[key] for row in done if row.get(key) is not None]
        if times:
            print(f"{key}: median {statistics.median(times):.1f}, worst {max(times):.1f}, of {len(times)}")
    print(f"{len(done)} faults, {unrecovered} unrecovered")
    return 1 if unrecovered else 0

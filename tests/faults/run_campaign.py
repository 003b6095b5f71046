#!/usr/bin/env python3
"""Faults at random instants of whole runs under launch/supervise.sh, with 4 to 8 ranks in several layouts: ranks, launchers and the
supervisor killed, stopped and signalled; disks full, failing and hanging; NaN in a gradient; a sample that kills; a slow rank; a
network that is cut. After each the run finishes, by itself or by the same command again as a person would give it; every loss and every
sample digest equals an undisturbed run's, and no process is left. Results are added to a table; a campaign that was interrupted goes on
where it was.

    tests/faults/run_campaign.py --count 120 --table tests/faults/run_results.jsonl      # about a quarter of an hour
"""
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import campaign
from campaign import LOCAL, PROGRAM, SHIM, SUPERVISE, TWO_HOSTS

STEPS, WINDOW = 40, 64
MOST_SECONDS = 150  # for a run to finish, whatever happened
LEFT_SECONDS = 20  # for its last process to be gone behind that
AGAIN = 3  # so often a person gives the same command again

LAYOUTS = {
    "data 2 x (1 + 1)": (4, ["--parallel.data=2", "--parallel.encoder_stages=1"]),
    "tensor 2 x (1 + 1)": (4, ["--parallel.data=1", "--parallel.tensor=2", "--parallel.encoder_stages=1"]),
    "data 4": (4, ["--parallel.data=4", "--parallel.encoder_stages=0"]),
    "data 2 x (1 + 2)": (6, ["--parallel.data=2", "--parallel.encoder_stages=1", "--parallel.decoder_stages=2"]),
    "data 2 x tensor 2 x (1 + 1)": (8, ["--parallel.data=2", "--parallel.tensor=2", "--parallel.encoder_stages=1"]),
    "data 2 x (2 + 2)": (8, ["--parallel.data=2", "--parallel.encoder_stages=2", "--parallel.decoder_stages=2"]),
}


@dataclasses.dataclass
class Fault:
    """What happens to a run at some instant, and what is to be seen of it."""

    strike: object = None  # strike(run, chance)
    shim: dict = dataclasses.field(default_factory=dict)  # of the library that is preloaded; it acts from the instant on
    options: tuple = ()
    told: str = ""  # a pattern that the log must have; RANK: of the shim
    before: int = STEPS * 3 // 4  # it strikes before this step
    stages: bool = False  # needs stages that send gradients
    hosts: bool = False  # needs two hosts


class Run(campaign.Run):
    def __init__(self, inputs, name: str, layout: str, options=(), hosts: str = ""):
        super().__init__(inputs, name)
        self.num_ranks, self.layout_options = LAYOUTS[layout]
        self.layout, self.options, self.hosts = layout, list(options), hosts
        self.when = inputs / f"{name}.now"

    def command(self) -> list:
        launcher = [TWO_HOSTS, "mpirun", self.hosts, self.num_ranks] if self.hosts else [LOCAL, "-n", self.num_ranks]
        # Products by a library that is chosen at the start may differ in bits from run to run.
        return [SUPERVISE, "--max-restarts", 5, "--backoff", 1, "--run-dir", self.name, "--", *launcher, PROGRAM, "train", "--config=run.ini",
                f"--train.run_dir={self.name}", "--train.gemm=plain", "--checkpoint.every=3", "--train.timeout_s=60", *self.layout_options,
                *self.options]

    def rank(self, number: int) -> int:
        """Process id of a rank, 0: it is not there."""
        for pid in self.ranks():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if f"OMPI_COMM_WORLD_RANK={number}".encode() in file.read().split(b"\0"):
                        return pid
            except OSError:
                continue
        return 0

    def launcher(self) -> int:
        """Process id of mpirun, 0: it is not there."""
        return min((pid for pid, words in self.processes().items() if words[0] == b"mpirun"), default=0)

    def step(self) -> int:
        try:
            return int((self.folder / "at_step").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def events(self, kind: str) -> list:
        path = self.folder / "runs.jsonl"
        if not path.exists():
            return []
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        return [event for event in found if event["event"] == kind]

    def metrics(self) -> dict:
        """Loss and digest of the samples, by step."""
        lines = (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return {line["step"]: (line["loss"], line["sample_digest"]) for line in map(json.loads, lines)}

    def wait_for_step(self, step: int) -> None:
        end = time.time() + 60
        while time.time() < end and self.process.poll() is None and self.step() < step:
            time.sleep(0.005)


class Failed(Exception):
    pass


def there(pid: int, what: str) -> int:
    if not pid:
        raise Failed(f"the {what} that it is to happen to is not there")
    return pid


def to_rank(number: int):
    return lambda run, chance: campaign.send(there(run.rank(chance.randrange(run.num_ranks)), "rank"), number)


def to_all_ranks(number: int):
    def strike(run: Run, chance) -> None:
        for pid in run.ranks():
            campaign.send(pid, number)
    return strike


def to_launcher(number: int):
    return lambda run, chance: campaign.send(there(run.launcher(), "mpirun"), number)


def to_supervisor(number: int):
    return lambda run, chance: campaign.send(run.process.pid, number)


def to_several(run: Run, chance) -> None:
    """Different signals to different ranks and the supervisor, at once."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        campaign.send(run.rank(chance.randrange(run.num_ranks)), number)
    campaign.send(run.process.pid, signal.SIGTERM)


def suspend(run: Run, chance) -> None:
    to_all_ranks(signal.SIGSTOP)(run, chance)
    time.sleep(chance.uniform(0.5, 3.0))
    to_all_ranks(signal.SIGCONT)(run, chance)


def cut(run: Run, chance) -> None:
    subprocess.run([TWO_HOSTS, "cut", run.hosts], check=True)


def shim(call: str, how: str = "error", **more) -> dict:
    return {"FAULT_CALL": call, "FAULT_HOW": how, **more}


DATA = {"FAULT_PATH": "text_text_document.bin"}
SHORT = ("--train.timeout_s=4", "--train.io_timeout_s=4")

FAULTS = {
    "SIGKILL of one rank": Fault(to_rank(signal.SIGKILL)),
    "SIGTERM to one rank": Fault(to_rank(signal.SIGTERM), told="asked to stop"),
    "SIGKILL of mpirun": Fault(to_launcher(signal.SIGKILL)),
    "NaN in a gradient": Fault(shim=shim("MPI_Isend", "nan"), options=("--train.max_skipped_steps=0",), stages=True,
                               told="not finite"),
    "SIGUSR1 to one rank": Fault(to_rank(signal.SIGUSR1), told="asked to stop"),
    "disk full for a while": Fault(shim=shim("fallocate", FAULT_ERRNO=errno.ENOSPC, FAULT_LASTS=1), told="No space left on device"),
    "a bad sample": Fault(told="without getting further: giving up"),
    "SIGINT to one rank": Fault(to_rank(signal.SIGINT), told="asked to stop"),
    "SIGTERM to the supervisor": Fault(to_supervisor(signal.SIGTERM), told="asked to stop"),
    "SIGKILL of all ranks": Fault(to_all_ranks(signal.SIGKILL)),
    "a slow rank": Fault(shim=shim("cos", "slow", FAULT_MS=40, FAULT_LASTS=1), options=("--train.straggler_every=4",),
                         told=r"rank RANK on \S+ \([^)]*\) is slow: ", before=STEPS // 2),  # three windows of four steps name it
    "SIGUSR1 to mpirun": Fault(to_launcher(signal.SIGUSR1), told="asked to stop"),
    "a read fails": Fault(shim=shim("pread", FAULT_ERRNO=errno.EIO, **DATA), told="Input/output error"),
    "NaN in a gradient, going back": Fault(
        shim=shim("MPI_Isend", "nan"), stages=True, told="going back to step",
        options=("--train.max_skipped_steps=0", "--train.spike_threshold=1e6", "--train.spike_back=0")),
    "SIGUSR1 to the supervisor": Fault(to_supervisor(signal.SIGUSR1), told="asked to stop"),
    "the network is cut": Fault(cut, hosts=True, options=SHORT),
    "SIGTERM to mpirun": Fault(to_launcher(signal.SIGTERM)),
    "SIGSTOP and SIGCONT of all ranks": Fault(suspend),
    "a loop without an end": Fault(shim=shim("cos", "spin"), options=SHORT, told="error: "),
    "SIGSTOP of one rank": Fault(to_rank(signal.SIGSTOP), options=SHORT, told="does not answer"),
    "SIGKILL of the supervisor": Fault(to_supervisor(signal.SIGKILL)),
    "SIGINT to the supervisor": Fault(to_supervisor(signal.SIGINT), told="asked to stop"),
    "a disk that hangs": Fault(shim=shim("fsync", "hang"), options=SHORT, told="since "),
    "several signals at once": Fault(to_several, told="asked to stop"),
}

whole = {}  # undisturbed runs, by layout and further options


def undisturbed(inputs, layout: str, options=()) -> Run:
    key = (layout, *options)
    if key not in whole:
        run = Run(inputs, f"whole{len(whole)}", layout, options)
        run.start()
        if run.wait(MOST_SECONDS) != 0:
            sys.exit(f"the undisturbed run failed:\n{run.told()}")
        whole[key] = run
    return whole[key]


def poison(run: Run, reference: Run, chance) -> dict:
    """The library that kills whoever reads the middle of a window of some step."""
    tokens = (run.inputs / "text_text_document.bin").read_bytes()
    step = chance.randrange(5, STEPS)
    told = campaign.run([PROGRAM, "inspect", "samples", reference.name, "--step", step, "--json"], run.inputs)
    samples = [sample for sample in json.loads(told.stdout)["samples"]]
    chance.shuffle(samples)
    for sample in samples:
        byte = 2 * (WINDOW * sample["item"] + WINDOW // 2)
        if tokens[byte:byte + 2] != b"\x04\0":  # the ends of documents are read when the file is opened
            return shim("pread", "kill", FAULT_BYTE=byte, FAULT_RANK="any", FAULT_LASTS=1, **DATA)
    raise Failed(f"step {step} has ends of documents alone")


class Observer:
    """Follows a run to its end: when the fault was noticed, and when the run was as far again as it had been."""

    def __init__(self, run: Run):
        self.run, self.begin, self.at = run, time.time(), run.step()
        self.told_before = len(run.told())
        self.starts = len(run.events("train"))
        self.detect_s = self.recover_s = None

    def noticed(self) -> None:
        if self.detect_s is None:
            self.detect_s = round(time.time() - self.begin, 2)
        self.run.when.unlink(missing_ok=True)
        if self.run.hosts:
            subprocess.run([TWO_HOSTS, "mend", self.run.hosts], check=True)

    def follow(self):
        """Exit code of the supervisor."""
        end = time.time() + MOST_SECONDS
        seen = False
        while time.time() < end:
            code = self.run.process.poll()
            told = self.run.told()[self.told_before:]
            if not seen and re.search("^supervise: .* ended with ", told, re.MULTILINE):
                seen = True
                self.noticed()
            further = len(self.run.events("train")) > self.starts or self.run.events("return")
            if self.recover_s is None and further and (self.run.step() >= self.at or code == 0):
                self.recover_s = round(time.time() - self.begin, 2)
            if self.detect_s is None and " is slow: " in told:
                self.detect_s = round(time.time() - self.begin, 2)
            if code is not None:
                if code != 0:
                    self.noticed()
                return code
            if self.run.events("return"):
                self.noticed()
            time.sleep(0.02)
        raise Failed("hung")


def wait_until_gone(run: Run, seconds: float) -> None:
    end = time.time() + seconds
    while run.processes():
        if time.time() > end:
            raise Failed(f"left behind: {run.processes()}")
        time.sleep(0.05)


def inject(fault: Fault, run: Run, reference: Run, chance) -> dict:
    """One fault in a fresh run, and the way to its end; what happened."""
    environment = dict(fault.shim)
    if run.name.endswith("bad"):
        environment = poison(run, reference, chance)
    elif environment:
        # Gradients go from the last stage to those before it; the disk's reservation is every rank's.
        environment |= {"FAULT_RANK": run.num_ranks - 1 if fault.stages else chance.randrange(run.num_ranks), "FAULT_WHEN": run.when}
    if environment:
        environment["LD_PRELOAD"] = SHIM
    run.start(**environment)
    step = chance.randrange(8, fault.before)
    run.wait_for_step(step)
    time.sleep(chance.uniform(0.0, 0.05))
    observer = Observer(run)
    if fault.shim:
        run.when.touch()
        if "FAULT_LASTS" in fault.shim and fault.shim["FAULT_CALL"] == "fallocate":
            time.sleep(chance.uniform(0.2, 1.0))
            run.when.unlink()  # somebody made room
    elif fault.strike:
        fault.strike(run, chance)
    codes = [observer.follow()]
    while codes[-1] != 0 and len(codes) <= AGAIN:
        wait_until_gone(run, MOST_SECONDS if codes[-1] < 0 else LEFT_SECONDS)
        left_out = re.findall(r"--data\.skip_samples=(\S+)", run.told())
        if left_out and run.name.endswith("bad"):
            run.options = [option for option in run.options if "skip_samples" not in option] + [f"--data.skip_samples={left_out[-1]}"]
        run.start(**environment)
        codes.append(observer.follow())
    if codes[-1] != 0:
        raise Failed(f"did not finish: exit codes {codes}")
    wait_until_gone(run, LEFT_SECONDS)
    wanted = fault.told.replace("RANK", str(environment.get("FAULT_RANK")))
    if wanted and not re.search(wanted, run.told()):
        raise Failed(f"not told: {wanted}")
    return {"step": observer.at, "exit_codes": codes, "restarts": run.told().count(": restart "), "starts": len(run.events("start")),
            "detect_s": observer.detect_s, "recover_s": observer.recover_s}


def compare(run: Run, reference: Run) -> None:
    got, expected = run.metrics(), reference.metrics()
    for step, told in got.items():
        if told != expected[step]:
            raise Failed(f"step {step}: loss and samples {told}, undisturbed {expected[step]}")
    # A process that is killed takes its last lines with it.
    if len(got) < len(expected) - 5:
        raise Failed(f"{len(expected) - len(got)} steps are missing in metrics.jsonl")
    if run.events("return"):
        # Its checkpoints also keep what was left out, and recent losses: tensors alone are compared.
        told = campaign.run([PROGRAM, "inspect", "checkpoint", run.name, "--diff", reference.name, "--json"], run.inputs)
        difference = json.loads(told.stdout) if told.returncode == 0 else {}
        places = [difference.get(name, [0, 1]) for name in ("step", "sample_cursor")]
        if not difference.get("tensors_equal") or any(first != second for first, second in places):
            raise Failed(f"not the tensors of a run that never had those samples: {told.stdout}{told.stderr}")
    elif run.digest() != reference.digest():
        raise Failed("not the checkpoint of an undisturbed run")


def what_was_left_out(run: Run) -> list:
    returned = ",".join(event["left_out"] for event in run.events("return"))
    given = [option for option in run.options if "skip_samples" in option]
    return [f"--data.skip_samples={returned}"] if returned else given


def attempt(inputs, number: int, name: str, chance):
    fault = FAULTS[name]
    layout = chance.choice([layout for layout in LAYOUTS if not fault.stages or "+" in layout])
    hosts = f"camp{os.getpid()}n{number}" if fault.hosts else ""
    options = ["--schedule.kind=cosine", "--schedule.warmup_steps=1", *fault.options]
    run = Run(inputs, f"run{number}{'bad' if name == 'a bad sample' else ''}", layout, options, hosts)
    if hosts and subprocess.run([TWO_HOSTS, "possible"], check=False, capture_output=True).returncode != 0:
        return run, None
    result = {"layout": layout, "ranks": run.num_ranks}
    try:
        if hosts:
            subprocess.run([TWO_HOSTS, "up", hosts], check=True)
        schedule = options[:2]
        result |= inject(fault, run, undisturbed(inputs, layout, schedule), chance)
        compare(run, undisturbed(inputs, layout, schedule + what_was_left_out(run)))
        result["outcome"] = "recovered"
    except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        result["outcome"] = f"not recovered: {error}"
    finally:
        run.kill()
        if hosts:
            subprocess.run([TWO_HOSTS, "down", hosts], check=False)
    return run, result


def prepare(inputs) -> None:
    del inputs  # undisturbed runs are made when their layout comes up


if __name__ == "__main__":
    sys.exit(campaign.conduct(__doc__, list(FAULTS), prepare, attempt, 30, STEPS, documents=160))

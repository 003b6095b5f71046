#!/usr/bin/env python3
"""Ranks of a real run that are stopped, killed, loop for ever, or hang in a call to a disk or to MPI: whether the run names the
rank, its host and its step, ends with the right code in time, leaves every rank's stack, and no process and no port behind. With
--network: two hosts (two_hosts.sh) whose cable is pulled. What is no more than a delay, a suspended job or lost packets, is to end nothing.

    tests/faults/watchdog_test.py [--network] [PART OF A NAME...]
"""
import argparse
import dataclasses
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from campaign import LOCAL, PROGRAM, SHIM, SUPERVISE, TWO_HOSTS, make_inputs

DEADLINE_S = 3  # train.timeout_s and train.io_timeout_s
LOST = 0.05  # of the packets of a lossy cable
NAMED_S, GONE_S = 60, 30  # past the deadline, and behind that: what is promised
WATCHDOG, COMMUNICATION, KILLED = 8, 6, 137
NOT_HERE = 77

LAYOUTS = {
    1: ["--parallel.data=1", "--parallel.encoder_stages=0"],
    2: ["--parallel.data=2", "--parallel.encoder_stages=0"],
    4: ["--parallel.data=2", "--parallel.encoder_stages=1"],
}


@dataclasses.dataclass
class Case:
    name: str
    ranks: int
    rank: int  # that it happens to
    fault: object  # a signal; "suspend" of the whole job; "cut", "lossy"; the environment of the library that is preloaded
    codes: tuple = (WATCHDOG,)
    deadline_s: float = DEADLINE_S
    told: tuple = ()  # patterns that must be in what is printed; {host} is the rank's
    stack: str = ""  # a function in its report; "none": it says that there is no stack
    options: tuple = ()


def shim(call: str, how: str, **more) -> dict:
    return {"FAULT_CALL": call, "FAULT_HOW": how, **more}


STEP = r"step \d+"
SILENT = r"rank {rank} on {host} does not answer: it was stopped, or its machine or network is gone"
HELD_UP = r"waited 3\.\d s for .* allowed; held up by rank {rank} on {host}"
SILENT_0 = r"waited 3\.\d s for .*; rank 0 on {host}, which hears from all ranks what they wait for, does not answer"
DIED = r"error: rank {rank} on {host} died"
ACTIVATION = (r"rank 3 waits for .* on communicator pipeline \(ranks 1, 3\) since \d+ s, at " + STEP +
              r", .*receive_\w+ of micro-batch \d+")
DATA = {"FAULT_PATH": "text_text_document.bin"}
SAVES = ("--checkpoint.every=5", "--checkpoint.keep_last=2")


def cases() -> list:
    found = []
    for ranks in (2, 4):
        for rank in (0, ranks - 1):
            told = (SILENT_0,) if rank == 0 else (HELD_UP, SILENT, r"(rank|ranks) [0-2, ]+ waits? for .* at " + STEP)
            found.append(Case(f"stop{rank}of{ranks}", ranks, rank, signal.SIGSTOP, told=told))
            # mpirun sees the death too, and its code wins when it is faster.
            found.append(Case(f"kill{rank}of{ranks}", ranks, rank, signal.SIGKILL, (COMMUNICATION, KILLED), told=(DIED,)))
        for rank in (0, 1):
            found.append(Case(f"loop{rank}of{ranks}", ranks, rank, shim("cos", "spin"),
                              told=(r"rank {rank} on {host}", STEP + ", gradients and update"), stack="red::optim::learning_rate"))
            told = (r"rank {rank} on {host}", STEP + ", reading samples", r"reading 'text_text_document\.bin' since")
            if ranks == 4 and rank == 1:  # the decoder stage of its pipeline
                told += (ACTIVATION,)
            found.append(Case(f"read{rank}of{ranks}", ranks, rank, shim("pread", "hang", **DATA), told=told,
                              stack="red::data::TokenStream::read_plain"))
        found.append(Case(f"mpi1of{ranks}", ranks, 1, shim("MPI_Iprobe", "spin"), told=(r"rank 1 on {host}", STEP),
                          stack="red::parallel::MpiContext::progress"))
    found += [
        Case("suspended", 2, 0, "suspend"),
        Case("loop0of1", 1, 0, shim("cos", "spin"), told=(r"rank 0 on {host}: its main thread is stuck: " + STEP,),
             stack="red::train::Trainer::run"),
        Case("deaf_read1of2", 2, 1, shim("pread", "deaf", **DATA),
             told=(r"rank 1 on {host}", r"reading 'text_text_document\.bin' since"), stack="none"),
        Case("sync1of2", 2, 1, shim("fsync", "hang"), told=(
            r"rank 1 on {host} \(data 1\): its checkpoint thread is stuck: syncing '.*/shard-00001\.h5' since",),
             stack="red::checkpoint::PosixFile::sync", options=SAVES),
        Case("write0of2", 2, 0, shim("pwrite", "hang"), told=(r"rank 0 on {host}", r"(writing|laying out) '.*' since", STEP + ", saving"),
             stack="red::train::RunCheckpoints::save_now", options=(*SAVES, "--checkpoint.async=off")),
    ]
    return found


def network_cases() -> list:
    return [
        Case("cut2", 2, 1, "cut", told=(HELD_UP, SILENT)),
        Case("cut4", 4, 3, "cut", told=(r"held up by ranks 2, 3", SILENT)),
        # Before any deadline the side channel itself notices: TCP's keepalive takes 30 s.
        Case("unreachable2", 2, 1, "cut", (COMMUNICATION,), 30, told=(r"rank 1 on {host} cannot be reached any more",),
             options=("--train.timeout_s=600",)),
        Case("lossy2", 2, 1, "lossy", options=("--train.timeout_s=60",)),
    ]


def listening_ports(pid="self") -> dict:
    """TCP ports of the network that this process sees, by the inode of the socket that listens there."""
    found = {}
    for kind in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                found[words[9]] = int(words[1].rpartition(":")[2], 16)
    return found


class Failed(Exception):
    pass


class Run:
    def __init__(self, case: Case, inputs: pathlib.Path, hosts: str):
        self.case, self.inputs, self.hosts = case, inputs, hosts
        self.folder = inputs / case.name
        self.log = inputs / f"{case.name}.log"
        self.when = inputs / f"{case.name}.now"
        program = [PROGRAM, "train", "--config=run.ini", f"--train.run_dir={case.name}", "--train.steps=1000000", "--checkpoint.every=0",
                   "--train.log_every=1", "--schedule.kind=cosine", "--schedule.warmup_steps=1", f"--train.timeout_s={DEADLINE_S}",
                   f"--train.io_timeout_s={DEADLINE_S}", *LAYOUTS[case.ranks], *case.options]
        launcher = [TWO_HOSTS, "mpirun", hosts, case.ranks] if hosts else [LOCAL, "-n", case.ranks]
        self.command = [str(word) for word in [SUPERVISE, "--run-dir", case.name, "--", *launcher, *program]]

    def start(self) -> None:
        environment = dict(os.environ)
        if isinstance(self.case.fault, dict):
            environment |= {"LD_PRELOAD": str(SHIM), "FAULT_RANK": str(self.case.rank), "FAULT_WHEN": str(self.when), **self.case.fault}
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(self.command, cwd=self.inputs, stdout=log, stderr=log, start_new_session=True, env=environment)

    def told(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> dict:
        """Everything of this run that lives, by process id: name and rank (-1: of no rank)."""
        found = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"--train.run_dir={self.case.name}".encode() not in words and not (self.hosts and self.hosts.encode() in words):
                continue
            if state == "Z" or int(entry.name) == os.getpid():
                continue
            ranks = [int(word.partition(b"=")[2]) for word in variables if word.startswith(b"OMPI_COMM_WORLD_RANK=")]
            found[int(entry.name)] = (words.split(b"\0")[0].decode(), ranks[0] if ranks else -1)
        return found

    def ports(self) -> set:
        """That its processes listen on."""
        found = set()
        for pid in self.processes():
            try:
                sockets = {os.readlink(entry) for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir()}
                found |= {port for inode, port in listening_ports(pid).items() if f"socket:[{inode}]" in sockets}
            except OSError:
                continue  # it ended meanwhile
        return found

    def wait_for_steps(self, count: int) -> None:
        end = time.time() + 60
        metrics = self.folder / "metrics.jsonl"
        while time.time() < end:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= count:
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise Failed("the run did not get going")

    def strike(self) -> None:
        if isinstance(self.case.fault, dict):
            self.when.touch()
        elif self.case.fault == "cut":
            subprocess.run([TWO_HOSTS, "cut", self.hosts], check=True)
        elif self.case.fault == "lossy":
            subprocess.run([TWO_HOSTS, "lossy", self.hosts, str(LOST)], check=True)
        elif self.case.fault == "suspend":
            self.suspend()
        else:
            pids = [pid for pid, (name, rank) in self.processes().items() if rank == self.case.rank and name == str(PROGRAM)]
            if len(pids) != 1:
                raise Failed(f"rank {self.case.rank} is {len(pids)} processes")
            os.kill(pids[0], self.case.fault)

    def suspend(self) -> None:
        """As a scheduler does, for longer than any deadline."""
        pids = [pid for pid, (name, _) in self.processes().items() if name == str(PROGRAM)]
        for number, pause_s in ((signal.SIGSTOP, 10), (signal.SIGCONT, 0)):
            for pid in pids:
                os.kill(pid, number)
            time.sleep(pause_s)

    def kill(self) -> None:
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def check_texts(run: Run, host: str) -> None:
    case = run.case
    for pattern in case.told:
        pattern = pattern.replace("{host}", re.escape(host)).replace("{rank}", str(case.rank))
        if not re.search(pattern, run.told()):
            raise Failed(f"not told: {pattern}")
    if WATCHDOG not in case.codes:
        return
    for rank in range(case.ranks):
        report = run.folder / "watchdog" / f"rank_{rank}.txt"
        if rank == case.rank and case.fault == signal.SIGSTOP:
            continue  # one only where the launcher wakes it up to end it
        if not report.exists():
            raise Failed(f"no {report}")
        text = report.read_text(encoding="utf-8")
        wanted = [f"rank {rank} on ", "main thread, state ", STEP]
        if rank == case.rank and case.stack:
            wanted.append("no stack: it takes no signals" if case.stack == "none" else re.escape(case.stack))
        elif rank != case.rank and isinstance(case.fault, signal.Signals):
            wanted.append(r"red::parallel::MpiContext::wait")
        for pattern in wanted:
            if not re.search(pattern, text):
                raise Failed(f"{report} has no {pattern}:\n{text}")


def try_case(case: Case, inputs: pathlib.Path, hosts: str) -> str:
    run = Run(case, inputs, hosts)
    host = f"{hosts}-b" if hosts else socket.gethostname()
    run.start()
    try:
        run.wait_for_steps(5)
        ports = run.ports()
        run.strike()
        begin, named_s = time.time(), None
        named = re.compile(case.told[0].replace("{host}", re.escape(host)).replace("{rank}", str(case.rank)))
        while run.process.poll() is None and time.time() < begin + case.deadline_s + NAMED_S + GONE_S:
            if named_s is None and named.search(run.told()):
                named_s = time.time() - begin
            time.sleep(0.05)
        if run.process.poll() is None:
            raise Failed(f"still there after {time.time() - begin:.0f} s: {run.processes()}")
        code = run.process.wait()
        named_s = named_s or time.time() - begin
        while run.processes() and time.time() < begin + named_s + GONE_S:
            time.sleep(0.05)
        gone_s = time.time() - begin - named_s
        if run.processes():
            raise Failed(f"left behind: {run.processes()}")
        if case.ranks > 1 and not ports:
            raise Failed("it listened on no port, as far as we see")
        if not hosts and (held := ports & set(listening_ports().values())):
            raise Failed(f"ports are still held: {held}")
        if code not in case.codes:
            raise Failed(f"exit code {code}, not {case.codes}")
        check_texts(run, host)
        if named_s > case.deadline_s + NAMED_S or gone_s > GONE_S:
            raise Failed("too late")
        return f"ok: code {code}, named {named_s:.1f} s after it, everything gone {gone_s:.1f} s later"
    finally:
        run.kill()


def try_delay(case: Case, inputs: pathlib.Path, hosts: str) -> str:
    """The run goes on as if nothing had been."""
    run = Run(case, inputs, hosts)
    run.start()
    try:
        run.wait_for_steps(5)
        run.strike()
        done = (run.folder / "metrics.jsonl").read_bytes().count(b"\n")
        run.wait_for_steps(done + 20)
        if "error" in run.told():
            raise Failed("it complains")
        return "ok: goes on"
    finally:
        run.kill()


def outcome_of(case: Case, inputs: pathlib.Path, network: bool) -> str:
    hosts = f"red{os.getpid()}{case.name}" if network else ""
    if case.fault == "lossy":
        possible = subprocess.run([TWO_HOSTS, "possible", "lossy"], check=False, capture_output=True, text=True)
        if possible.returncode == NOT_HERE:
            return f"ok: {possible.stdout.strip()}"
    try:
        if hosts:
            subprocess.run([TWO_HOSTS, "up", hosts], check=True)
        return (try_delay if case.fault in ("suspend", "lossy") else try_case)(case, inputs, hosts)
    except (Failed, OSError, subprocess.CalledProcessError) as error:
        log = inputs / f"{case.name}.log"
        return f"FAILED: {error}\n{log.read_text(encoding='utf-8', errors='replace') if log.exists() else ''}"
    finally:
        if hosts:
            subprocess.run([TWO_HOSTS, "down", hosts], check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="store_true", help="between two hosts")
    parser.add_argument("--at-once", type=int, default=3, help="cases side by side: most of their time they wait (default: 3)")
    parser.add_argument("names", nargs="*", help="cases whose name has one of these in it (default: all)")
    options = parser.parse_args()
    if options.network:
        possible = subprocess.run([TWO_HOSTS, "possible"], check=False)
        if possible.returncode != 0:
            return possible.returncode
    chosen = [case for case in (network_cases() if options.network else cases())
              if not options.names or any(name in case.name for name in options.names)]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="redllm-watchdog-") as folder, ThreadPoolExecutor(options.at_once) as side_by_side:
        inputs = pathlib.Path(folder)
        make_inputs(inputs)
        outcomes = side_by_side.map(lambda case: outcome_of(case, inputs, options.network), chosen)
        for case, outcome in zip(chosen, outcomes):
            failed += not outcome.startswith("ok")
            print(f"{case.name:14} {outcome}", flush=True)
    print(f"{len(chosen) - failed} of {len(chosen)} cases as promised")
    return 1 if failed or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())

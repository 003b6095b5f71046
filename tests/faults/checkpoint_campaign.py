#!/usr/bin/env python3
"""Faults at random instants of saves under four ranks: kills, stops, full and failing disks, damaged and lost files, two runs
in one folder, a slow disk, a stale lock. Held to, for each: the code that the run ends with; that the same command without the fault
goes on from the newest whole checkpoint, by its own log, and sets aside what was damaged and nothing else; that this checkpoint is
the undisturbed run's of that very step, and that so is the last one. Results are added to a table; a campaign that was interrupted
goes on where it was.

    tests/faults/checkpoint_campaign.py --count 120      # about ten minutes
"""
import dataclasses
import errno
import json
import os
import re
import signal
import sys
import time

import campaign
from campaign import LOCAL, PROGRAM, SHIM

RANKS, STEPS, MOST_SECONDS = 4, 24, 30


class Wrong(Exception):
    """What must not be, in words."""


class Run(campaign.Run):
    def __init__(self, inputs, name: str, *options: str):
        super().__init__(inputs, name)
        self.options = options
        self.broken = None  # the step whose checkpoint a fault has damaged

    def command(self) -> list:
        # Products by a library that is chosen at the start, by speed, may differ in bits from run to run.
        # Other tests run beside this one, so that a rank may wait for a core as long as others would for one that is lost.
        return [LOCAL, "-n", RANKS, PROGRAM, "train", "--config=run.ini", f"--train.run_dir={self.name}", "--train.gemm=plain",
                "--train.timeout_s=10", *self.options]

    def kill(self) -> None:
        super().kill()
        end = time.time() + MOST_SECONDS
        while self.processes() and time.time() < end:  # one that is killed in a call of the system first ends that
            time.sleep(0.01)

    def wait_for_saves(self, count: int) -> None:
        end = time.time() + 60
        while time.time() < end and self.process.poll() is None:
            if self.newest_step() >= count:
                return
            time.sleep(0.005)

    def steps(self) -> list:
        """Of folders whose name says that they are whole, newest first."""
        return sorted((int(path.name[5:]) for path in self.checkpoints.glob("step-*") if path.name[5:].isdigit()), reverse=True)

    def newest_step(self) -> int:
        return max(self.steps(), default=0)

    def checkpoint(self, step: int):
        return self.checkpoints / f"step-{step:08d}"

    def digest_of(self, step: int) -> str:
        done = campaign.run([PROGRAM, "inspect", "checkpoint", self.checkpoint(step), "--digest"], self.inputs)
        return done.stdout.strip() if done.returncode == 0 else f"none: {done.stderr.strip()}"

    def set_aside(self, what: str) -> list:
        return sorted(path.name for path in self.checkpoints.glob(f"step-*.{what}-*"))


# Faults. Each begins with a run under way that has made some saves, and returns when nothing of it runs any more.
def signal_some(run_: Run, chance, number: int, everybody: bool) -> None:
    pids = run_.ranks()
    if not pids:
        raise RuntimeError("the run ended before the fault")
    for pid in pids if everybody else [chance.choice(pids)]:
        campaign.send(pid, number)


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
    """A second run in the same folder is refused while the first lives, which goes on as if nothing had been. It is held up
    meanwhile: it would end too soon."""
    signal_some(run_, chance, signal.SIGSTOP, True)
    other = campaign.run(run_.command(), run_.inputs, MOST_SECONDS)
    signal_some(run_, chance, signal.SIGCONT, True)
    if other.returncode != 2 or "a run in this folder is alive" not in other.stderr:
        raise RuntimeError(f"a second run in the folder ended with {other.returncode}:\n{other.stderr}")
    if run_.wait(MOST_SECONDS) != 0:
        raise RuntimeError("the first run did not end well")


def stale_lock(run_: Run, chance) -> None:
    """What a host that was lost leaves behind: a lock that nobody can ask for, renewed long ago."""
    run_.kill()
    lock = run_.folder / "run.lock"
    holder = json.loads(lock.read_text())
    holder.update(host="lost", place="lost")
    lock.write_text(json.dumps(holder) + "\n")
    os.utime(lock, (time.time() - 3600, time.time() - 3600))


def damage(change):
    """The run is killed; then `change` is done to a file of its newest checkpoint, or to one of an older checkpoint or to
    `latest`, neither of which may cost anything."""
    def fault(run_: Run, chance) -> None:
        run_.kill()
        newest, *older = run_.steps()
        where = chance.choice(["newest", "newest", "older", "latest"])
        if where == "latest":
            return change(run_.checkpoints / "latest", chance)
        step = chance.choice(older) if where == "older" else newest
        files = sorted(path for path in run_.checkpoint(step).glob("*") if path.is_file() and path.stat().st_size > 0)
        change(chance.choice(files), chance)
        run_.broken = step
    return fault


def flip_bit(path, chance) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path, chance) -> None:
    """By two bytes at least: a checksum in text does without its line feed."""
    os.truncate(path, chance.randrange(path.stat().st_size - 1))


@dataclasses.dataclass
class DiskFault:
    """Of calls of one rank, by the library that is preloaded."""
    call: str
    number: int  # errno; 0: half of the bytes are written
    lasts: bool = False
    how: str = "error"

    def told(self) -> str:
        """What the log must say; of half a write nothing: it goes on with the other half."""
        if self.how == "slow":
            return "has to wait: the save of step"
        return os.strerror(self.number) if self.number else ""

    def environment(self, chance) -> dict:
        # Index, folders and renames are rank 0's; a shard takes a few calls for each save.
        return {"LD_PRELOAD": SHIM, "FAULT_RANK": 0 if self.call in ("rename", "mkdir") else chance.randrange(RANKS),
                "FAULT_AFTER": chance.randrange(20), "FAULT_CALL": self.call, "FAULT_ERRNO": self.number,
                "FAULT_LASTS": int(self.lasts), "FAULT_HOW": self.how}


KILLED_BY_US = -signal.SIGKILL
# And the codes that the run may end with. One whose save fails once goes on. Of a rank that is killed, mpirun may learn before or
# after another rank has noticed and ended with 6.
FAULTS = {
    "SIGKILL of one rank": (kill_one, {137, 6}),
    "SIGKILL of all ranks": (kill_all, {137, 6}),
    "SIGSTOP of one rank": (stop_one, {8}),
    "two runs in one folder": (second_run, {0}),
    "a flipped bit": (damage(flip_bit), {KILLED_BY_US}),
    "truncation": (damage(truncate), {KILLED_BY_US}),
    "a lost file": (damage(lambda path, chance: path.unlink()), {KILLED_BY_US}),
    "disk full at reservation": (DiskFault("fallocate", errno.ENOSPC), {0}),
    "disk full from now on": (DiskFault("fallocate", errno.ENOSPC, lasts=True), {7}),
    "disk full at write": (DiskFault("pwrite", errno.ENOSPC), {0}),
    "short write": (DiskFault("pwrite", 0), {0}),
    "EIO at write": (DiskFault("pwrite", errno.EIO), {0}),
    "EIO at fsync": (DiskFault("fsync", errno.EIO), {0}),
    "EIO at rename": (DiskFault("rename", errno.EIO), {0}),
    "EACCES at rename, from now on": (DiskFault("rename", errno.EACCES, lasts=True), {7}),
    "a read-only folder, from now on": (DiskFault("mkdir", errno.EROFS, lasts=True), {7}),
    "quota at write": (DiskFault("pwrite", errno.EDQUOT), {0}),
    "a slow disk": (DiskFault("fsync", 0, lasts=True, how="slow"), {0}),
    "a stale lock": (stale_lock, {KILLED_BY_US}),
}


def disturb(run_: Run, name: str, chance, most: float) -> int:
    """Runs into the fault; the code that the run ended with, which must be the expected one."""
    fault, expected = FAULTS[name]
    if isinstance(fault, DiskFault):
        run_.start(**fault.environment(chance))
        code = run_.wait(most)
    else:
        run_.start()
        run_.wait_for_saves(chance.randrange(2, STEPS // 2))
        time.sleep(chance.uniform(0.0, 0.05))
        fault(run_, chance)
        code = run_.wait(MOST_SECONDS)
    run_.kill()
    if code is None:
        raise Wrong("hung")
    if isinstance(fault, DiskFault) and fault.told() not in run_.told():
        raise Wrong("the fault was not told")
    ended_before = expected & {KILLED_BY_US, 137} and code == 0 and run_.newest_step() == STEPS
    if code not in expected and not ended_before:
        raise Wrong(f"ended with {code} instead of {sorted(expected)}")
    return code


def go_on(run_: Run, whole: Run, most: float) -> int:
    """The same command without the fault; the step that it went on from, which must be that of the newest whole checkpoint."""
    steps = run_.steps()
    step = next((step for step in steps if step != run_.broken), 0)
    if step > 0 and run_.digest_of(step) != whole.digest_of(step):
        raise Wrong(f"step {step}: {run_.digest_of(step)}, undisturbed {whole.digest_of(step)}")
    told_before = len(run_.told())
    run_.start()
    code = run_.wait(most)
    run_.kill()
    told = run_.told()[told_before:]
    if code is None:
        raise Wrong("hung after it was started again")
    if code != 0:
        raise Wrong(f"started again it ended with {code}")
    began = re.findall(r"resuming \S*/(step-\d+) at step (\d+),", told) or re.findall(r"(starting) at step (\d+):", told)
    if began != [(run_.checkpoint(step).name if step > 0 else "starting", str(step))]:
        raise Wrong(f"began with {began}, the newest whole checkpoint is of step {step}")
    if (step == STEPS) != (": nothing to do" in told):
        raise Wrong(f"from step {step} of {STEPS} there was nothing to do, or too much")
    # What is older than the one that was chosen is not looked at.
    damaged = [f"{run_.checkpoint(run_.broken).name}.damaged-1"] if run_.broken is not None and run_.broken > step else []
    if run_.set_aside("damaged") != damaged:
        raise Wrong(f"set aside as damaged: {run_.set_aside('damaged')}, damaged was {damaged}")
    if run_.digest() != whole.digest_of(STEPS) or run_.newest_step() != STEPS:
        raise Wrong(f"not recovered: {run_.digest()}, undisturbed {whole.digest_of(STEPS)}")
    return step


def main() -> int:
    undisturbed = {}

    def prepare(inputs) -> None:
        whole = Run(inputs, "whole", "--checkpoint.keep_last=0")
        begin = time.time()
        whole.start()
        if whole.wait(120) != 0:
            sys.exit(f"the undisturbed run failed:\n{whole.told()}")
        if whole.steps() != list(range(STEPS, 0, -1)):
            sys.exit(f"the undisturbed run saved the steps {whole.steps()}")
        undisturbed.update(run=whole, seconds=time.time() - begin)

    def attempt(inputs, number: int, name: str, chance):
        # A run that takes 30 s more than an undisturbed one hangs; on a loaded machine that one's time is a guess.
        most = 2 * undisturbed["seconds"] + MOST_SECONDS
        # Nobody waits for a slow disk where every save is waited for.
        saving = "on" if name == "a slow disk" else chance.choice(["on", "on", "off"])
        disturbed = Run(inputs, f"run{number}", f"--checkpoint.async={saving}")
        result = {"async": saving}
        try:
            result["exit_code"] = disturb(disturbed, name, chance, most)
            begin = time.time()
            result["resumed_from"] = go_on(disturbed, undisturbed["run"], most)
            result["recovery_s"] = round(time.time() - begin, 2)
            result["set_aside"] = sorted(path.name for path in disturbed.checkpoints.glob("step-*.*"))
            result["outcome"] = "recovered"
        except Exception as error:  # of a fault: it is told, and the campaign goes on
            disturbed.kill()
            result["outcome"] = str(error) if isinstance(error, Wrong) else f"failed: {error}"
        return disturbed, result

    return campaign.conduct(__doc__, list(FAULTS), prepare, attempt, 40, STEPS)


if __name__ == "__main__":
    sys.exit(main())

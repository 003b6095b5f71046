#!/usr/bin/env python3
"""Faults at random instants of saves under four ranks: kills, stops, full and failing disks, damaged and lost files, two runs
in one folder, a slow disk, a stale lock. After each, the same command without the fault must finish from a whole checkpoint, with
the digest that an undisturbed run has. Results are added to a table; a campaign that was interrupted goes on where it was.

    tests/faults/checkpoint_campaign.py --count 120      # about ten minutes
"""
import dataclasses
import errno
import json
import os
import signal
import sys
import time

import campaign
from campaign import LOCAL, PROGRAM, SHIM

RANKS, STEPS, MOST_SECONDS = 4, 24, 30


class Run(campaign.Run):
    def command(self) -> list:
        # Products by a library that is chosen at the start, by speed, may differ in bits from run to run.
        # Other tests run beside this one, so that a rank may wait for a core as long as others would for one that is lost.
        return [LOCAL, "-n", RANKS, PROGRAM, "train", "--config=run.ini", f"--train.run_dir={self.name}", "--train.gemm=plain",
                "--train.timeout_s=10"]

    def wait_for_saves(self, count: int) -> None:
        end = time.time() + 60
        while time.time() < end and self.process.poll() is None:
            if self.newest_step() >= count:
                return
            time.sleep(0.005)

    def newest_step(self) -> int:
        steps = [int(path.name[5:]) for path in self.checkpoints.glob("step-*") if path.name[5:].isdigit()]
        return max(steps, default=0)

    def newest(self):
        return self.checkpoints / f"step-{self.newest_step():08d}"


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
    """The run is killed; then `change` is done to a file of its newest checkpoint."""
    def fault(run_: Run, chance) -> None:
        run_.kill()
        files = sorted(path for path in run_.newest().glob("*") if path.is_file() and path.stat().st_size > 0)
        change(chance.choice(files), chance)
    return fault


def flip_bit(path, chance) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path, chance) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


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


FAULTS = {
    "SIGKILL of one rank": kill_one,
    "SIGKILL of all ranks": kill_all,
    "SIGSTOP of one rank": stop_one,
    "two runs in one folder": second_run,
    "a flipped bit": damage(flip_bit),
    "truncation": damage(truncate),
    "a lost file": damage(lambda path, chance: path.unlink()),
    "disk full at reservation": DiskFault("fallocate", errno.ENOSPC),
    "disk full from now on": DiskFault("fallocate", errno.ENOSPC, lasts=True),
    "disk full at write": DiskFault("pwrite", errno.ENOSPC),
    "short write": DiskFault("pwrite", 0),
    "EIO at write": DiskFault("pwrite", errno.EIO),
    "EIO at fsync": DiskFault("fsync", errno.EIO),
    "EIO at rename": DiskFault("rename", errno.EIO),
    "EACCES at rename, from now on": DiskFault("rename", errno.EACCES, lasts=True),
    "a read-only folder, from now on": DiskFault("mkdir", errno.EROFS, lasts=True),
    "quota at write": DiskFault("pwrite", errno.EDQUOT),
    "a slow disk": DiskFault("fsync", 0, lasts=True, how="slow"),
    "a stale lock": stale_lock,
}


def inject(fault, run_: Run, chance, undisturbed_s: float) -> dict:
    """One fault in a fresh run, and the way back; what happened. A run that takes 30 s more than an undisturbed one hangs; on
    a loaded machine that one's time is a guess."""
    most = 2 * undisturbed_s + MOST_SECONDS
    begin = time.time()
    if isinstance(fault, DiskFault):
        run_.start(**fault.environment(chance))
        code = run_.wait(most)
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
    if isinstance(fault, DiskFault) and fault.told() not in run_.told():
        return {"outcome": "the fault was not told", "exit_code": code}
    before = run_.newest_step()
    begin = time.time()
    run_.start()
    again = run_.wait(most)
    run_.kill()
    if again is None:
        return {"outcome": "hung after it was started again", "exit_code": code, "seconds": time.time() - begin}
    return {"exit_code": code, "resumed_from_at_most": before, "exit_code_again": again, "recovery_s": round(time.time() - begin, 2),
            "set_aside": sorted(path.name.split(".", 1)[1] for path in run_.checkpoints.glob("step-*.*"))}


def main() -> int:
    expected = {}

    def prepare(inputs) -> None:
        whole = Run(inputs, "whole")
        begin = time.time()
        whole.start()
        if whole.wait(120) != 0:
            sys.exit(f"the undisturbed run failed:\n{whole.told()}")
        expected["seconds"] = time.time() - begin
        expected["digest"] = whole.digest()

    def attempt(inputs, number: int, name: str, chance):
        disturbed = Run(inputs, f"run{number}")
        try:
            result = inject(FAULTS[name], disturbed, chance, expected["seconds"])
        except Exception as error:  # of a fault: it is told, and the campaign goes on
            disturbed.kill()
            result = {"outcome": f"failed: {error}"}
        if "outcome" not in result:
            digest = disturbed.digest()
            recovered = result["exit_code_again"] == 0 and digest == expected["digest"]
            result["outcome"] = "recovered" if recovered else f"not recovered: {digest}, undisturbed {expected['digest']}"
        return disturbed, result

    return campaign.conduct(__doc__, list(FAULTS), prepare, attempt, 40, STEPS)


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""The job scripts of slurm/ on a real Slurm cluster of two nodes (launch/local_slurm.sh), with a tiny model, its encoder on one node and
its decoder on the other: jobs that run out of time, are requeued, cancelled, asked to stop, lose a node or wait for one. Each ends as an
undisturbed job does: every loss and every sample digest, each step once, the same checkpoint, no process left. And of the cluster itself:
its status, its environment, and one of a user without privileges.

    tests/faults/slurm_test.py [PART OF A NAME...]      # ends with 77 where there is no Slurm
"""
import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from campaign import BUILD, PROGRAM, ROOT, SHIM, make_inputs, processes_with, run
from slurm_cluster import Cluster, Failed, unprivileged

STEPS = 600
STEP_MS = 60  # a step sleeps so long on all ranks, so that jobs last for a minute beside each other on few cores
MOST_SECONDS = 400  # for a job to finish, whatever happened: a lost node's lock alone holds for a minute
NOT_HERE = 77

DATA = """[model]
vocab_size = 320
d_model = 32
d_ff = 64
num_heads = 2
head_dim = 16
encoder_layers = 1
decoder_layers = 1
[train]
steps = {steps}
global_batch = 2
threads = 1
precision = fp32
gemm = plain
timeout_s = 60
[schedule]
warmup_steps = 1
[checkpoint]
every = 50
[data]
tokenizer = {folder}/t.model
window = 64
[data.source.text]
tokens = {folder}/text
"""
TUNING_STEPS = 20
TUNING_DATA = DATA.replace("window = 64", "input_length = 32\ntarget_length = 16").replace("{folder}/text", "{folder}/pairs")
# Before a program: rank 1 of node n1 takes its processor for a lesser one than the others do.
ANOTHER_PROCESSOR = """#!/bin/bash
if [ "$SLURMD_NODENAME $OMPI_COMM_WORLD_RANK" = "n1 1" ]; then export RED_MAX_CPU=avx2; fi
exec "$@"
"""


class Job:
    """A job of slurm/red_150m.sh with a tiny model, in a run folder of its own. srun has two slurmd of one host for one PMIx server,
    so what it starts is on one node."""

    def __init__(self, cluster: Cluster, inputs: pathlib.Path, name: str, *sbatch, launcher: str = "mpirun", step_ms: int = STEP_MS):
        self.cluster, self.inputs, self.name = cluster, inputs, name
        self.launcher, self.step_ms = launcher, step_ms
        self.nodes = "n[1-2]" if launcher == "mpirun" else "n1"
        self.sbatch = [*(("--nodes=2", "--ntasks-per-node=1") if launcher == "mpirun" else ("--nodes=1", "--ntasks-per-node=2", "-w", "n1")),
                       *sbatch]
        self.folder, self.log = inputs / name, inputs / f"{name}.log"
        self.number = 0

    def submit(self, script: str = "slurm/red_150m.sh", *arguments, **environment) -> None:
        shim = [f"LD_PRELOAD={SHIM}", "FAULT_RANK=any", "FAULT_CALL=cos", "FAULT_HOW=slow", "FAULT_LASTS=1", f"FAULT_MS={self.step_ms}"]
        variables = {"RUN_DIR": self.folder, "DATA_CONFIG": self.inputs / "data.ini", "REDLLM_BUILD": BUILD,
                     "LAYOUT": "data=1 tensor=1 encoder_stages=1 decoder_stages=1", "MICRO_BATCH": 1,
                     "SITE_LAUNCHER": self.launcher, "SITE_MPIRUN": " ".join(f"-x {word}" for word in shim),
                     "SITE_SRUN": f"--export=ALL,{','.join(shim)}",
                     "SITE_PREFLIGHT_OPTIONS": "--slower-by=0.99", **environment}
        # Jobs share nodes here, which the script asks for whole.
        done = run(["sbatch", "--parsable", "--gpus-per-node=0", "--oversubscribe", f"--output={self.log}", *self.sbatch, script, *arguments], ROOT,
                   env={**self.cluster.environment, **{key: str(value) for key, value in variables.items()}})
        if done.returncode != 0:
            raise Failed(f"sbatch: {done.stderr}")
        self.number = int(done.stdout)

    def told(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def state(self) -> dict:
        return dict(re.findall(r"(\w+)=(\S+)", self.cluster.call("scontrol", "show", "job", self.number)))

    def step(self) -> int:
        try:
            return int((self.folder / "at_step").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return 0

    def wait(self, what: str, holds, seconds: float = MOST_SECONDS) -> None:
        end = time.time() + seconds
        while not holds():
            if time.time() > end:
                raise Failed(f"not within {seconds} s: {what}; {self.state()}")
            time.sleep(0.2)

    def wait_for_step(self, step: int) -> None:
        self.wait(f"step {step}", lambda: self.step() >= step)

    def wait_for_state(self, *states) -> None:
        self.wait(" or ".join(states), lambda: self.state()["JobState"] in states)

    def processes(self) -> dict:
        return processes_with(f"--train.run_dir={self.folder}".encode())

    def metrics(self) -> list:
        """Step, loss and digest of the samples."""
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return [(line["step"], line["loss"], line["sample_digest"]) for line in lines if "loss" in line]

    def digest(self) -> str:
        done = run([PROGRAM, "inspect", "checkpoint", self.folder, "--digest"], self.inputs)
        return done.stdout.strip() if done.returncode == 0 else f"none: {done.stderr.strip()}"


def expect(job: Job, pattern: str) -> re.Match:
    found = re.search(pattern, job.told())
    if not found:
        raise Failed(f"not told: {pattern}")
    return found


def expect_saved_and_requeued(job: Job) -> None:
    """It saved where it was, and went on from there."""
    step = expect(job, r"asked to stop: saving step (\d+)").group(1)
    expect(job, "back into the queue")
    expect(job, rf"start [1-9]\d* on {re.escape(job.nodes)}:")
    expect(job, rf"resuming \S+ at step {step},")


def nothing(job: Job) -> None:
    job.wait_for_state("COMPLETED")
    expect(job, r"preflight: 2 ranks are fit for the run")
    expect(job, r"start 0 on n\[1-2\]:")


def out_of_time(job: Job) -> None:
    job.wait_for_state("COMPLETED")
    expect_saved_and_requeued(job)


def requeue(job: Job) -> None:
    """Slurm ends the job without asking it: what is behind the last checkpoint is computed again."""
    job.wait_for_step(STEPS // 3)
    job.cluster.call("scontrol", "requeue", job.number)
    job.wait_for_state("COMPLETED")
    expect(job, rf"start 1 on {re.escape(job.nodes)}:")


def cancel(job: Job) -> None:
    """And submitted again, as a person would."""
    job.wait_for_step(STEPS // 3)
    job.cluster.call("scancel", job.number)
    job.wait("its end", lambda: not job.processes() and job.state()["JobState"] not in ("RUNNING", "COMPLETING"))
    if (state := job.state())["JobState"] != "CANCELLED" or state["Restarts"] != "0":
        raise Failed(f"it did not stay cancelled: {state}")
    expect(job, "cancelled: not put back into the queue")
    job.submit()
    job.wait_for_state("COMPLETED")


def ask(job: Job) -> None:
    job.wait_for_step(STEPS // 3)
    job.cluster.call("scancel", "--batch", "--signal=USR1", job.number)
    job.wait_for_state("COMPLETED")
    expect_saved_and_requeued(job)


def ask_step(job: Job) -> None:
    """Without --batch only steps are asked: ranks under srun, and under mpirun its daemon on the other node."""
    job.wait_for_step(STEPS // 3)
    job.cluster.call("scancel", "--signal=USR1", job.number)
    job.wait_for_state("COMPLETED")
    expect_saved_and_requeued(job)


def lose_node(job: Job) -> None:
    job.wait_for_step(STEPS // 3)
    os.kill(job.cluster.daemon("n2"), signal.SIGKILL)
    job.wait("requeued", lambda: int(job.state().get("Restarts", 0)) > 0)
    job.cluster.start()
    job.wait_for_state("COMPLETED")
    expect(job, rf"start 1 on {re.escape(job.nodes)}:")


def drain_node(job: Job) -> None:
    """What runs goes on; asked to stop it waits for the node."""
    job.wait_for_step(STEPS // 6)
    job.cluster.call("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    before = job.step()
    job.wait_for_step(before + 20)
    job.cluster.call("scancel", "--batch", "--signal=USR1", job.number)
    job.wait_for_state("PENDING")
    time.sleep(5)
    if job.state()["JobState"] != "PENDING":
        raise Failed("it does not wait for the node")
    job.cluster.call("scontrol", "update", "nodename=n2", "state=resume")
    job.wait_for_state("COMPLETED")
    expect_saved_and_requeued(job)


def exclude_node(job: Job) -> None:
    """The job ends, and another one of the same size has the node that is left."""
    job.wait("another job", lambda: "submitted again without n1: " in job.told())
    job.wait_for_state("FAILED")
    if (state := job.state())["ExitCode"] != "9:0":
        raise Failed(f"the job whose node is not fit ended as {state}")
    job.number = int(expect(job, r"submitted again without n1: (\d+)").group(1))
    job.wait_for_state("COMPLETED")
    expect(job, r"preflight: the device on n1 is")
    expect(job, r"start 0 on n2:")
    if (job.folder / "excluded_nodes").read_text(encoding="utf-8") != "n1\n":
        raise Failed("excluded_nodes has other nodes than n1")


@dataclasses.dataclass
class Case:
    name: str
    happens: object  # happens(job): until the job is done
    sbatch: tuple = ()
    launcher: str = "mpirun"
    own_cluster: bool = False  # nobody else's job is to notice
    step_ms: int = STEP_MS
    environment: dict = dataclasses.field(default_factory=dict)  # {inputs}: their folder


# A job that a job submits has of sbatch's options only what the site says.
EXCLUDE = {"SITE_PREFLIGHT": "exclude", "SITE_CONTAINER": "bash {inputs}/another_processor.sh",
           "SITE_SBATCH": "--gpus-per-node=0 --oversubscribe --output={inputs}/exclude_node.log"}

CASES = [
    Case("lose_node", lose_node, own_cluster=True, step_ms=2 * STEP_MS),  # a busy machine's Slurm notices late
    Case("out_of_time", out_of_time, ("--time=1", "--signal=B:USR1@40")),
    Case("drain_node", drain_node, own_cluster=True),
    Case("exclude_node", exclude_node, ("--nodes=1", "--ntasks-per-node=2", "--nodelist=n1"), step_ms=0, environment=EXCLUDE),
    Case("requeue", requeue),
    Case("cancel", cancel),
    Case("ask", ask),
    Case("step_ask", ask_step),
    Case("srun_ask", ask_step, launcher="srun"),
    Case("srun_out_of_time", out_of_time, ("--time=1", "--signal=B:USR1@40"), launcher="srun"),
]


def check_same(job: Job, reference: Job) -> None:
    state = job.state()
    if (state["JobState"], state["ExitCode"]) != ("COMPLETED", "0:0"):
        raise Failed(f"ended as {state['JobState']}, {state['ExitCode']}")
    if [step for step, _, _ in job.metrics()] != list(range(1, STEPS + 1)):
        raise Failed(f"steps: {[step for step, _, _ in job.metrics()]}")
    if job.metrics() != reference.metrics() or job.digest() != reference.digest():
        raise Failed("losses, samples or parameters differ from the undisturbed job's")
    if job.processes():
        raise Failed(f"left behind: {job.processes()}")


def outcome_of(case: Case, cluster: Cluster, inputs: pathlib.Path, port: int, reference) -> str:
    begin, own, job = time.time(), None, None
    try:
        if case.own_cluster:
            own = Cluster(inputs / f"cluster-{case.name}", port)
        job = Job(own or cluster, inputs, case.name, *case.sbatch, launcher=case.launcher, step_ms=case.step_ms)
        job.submit(**{name: value.format(inputs=inputs) for name, value in case.environment.items()})
        case.happens(job)
        check_same(job, reference.result())
        return f"ok: {time.time() - begin:.0f} s"
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        return f"FAILED: {error}\n{job.told() if job else ''}"
    finally:
        if own:
            own.stop()


def undisturbed(cluster: Cluster, inputs: pathlib.Path) -> Job:
    job = Job(cluster, inputs, "undisturbed")
    job.submit()
    nothing(job)
    check_same(job, job)
    return job


def dry_run(cluster: Cluster, inputs: pathlib.Path) -> str:
    """Of the largest model, through the same script in a job of one task: plan and commands, and nothing that starts."""
    job = Job(cluster, inputs, "dry_run", "--nodes=1")
    job.submit("slurm/red_8b.sh", "--dry-run", LAYOUT="data=8 tensor=8 encoder_stages=1 decoder_stages=1", DATA_CONFIG="none.ini")
    job.wait_for_state("COMPLETED")
    for pattern in ("layout: .*, 128 ranks; launcher mpirun", r"command: launch/supervise\.sh .* mpirun -n 128 ", r"red_8b \(red\)", "128 ranks"):
        expect(job, pattern)
    if job.folder.exists():
        raise Failed("a dry run made a run folder")
    return "ok"


def make_pairs(inputs: pathlib.Path) -> None:
    pair = json.dumps({"inputs": "a rank or a file", "targets": "nobody is called"})
    (inputs / "pairs.jsonl").write_text(40 * f"{pair}\n", encoding="utf-8")
    done = run([PROGRAM, "data", "build", "--pairs", "--tokenizer", "t.model", "--out", "pairs", "pairs.jsonl"], inputs)
    if done.returncode != 0:
        sys.exit(f"redllm data build --pairs: {done.stderr}")


def tune(cluster: Cluster, inputs: pathlib.Path, reference) -> str:
    """From what the undisturbed job has learnt, by the script that tunes its model."""
    job = Job(cluster, inputs, "tuned", step_ms=0)
    try:
        job.submit("slurm/tune_red_150m.sh", TUNING_DATA_CONFIG=inputs / "tuning.ini", INITIALIZE_FROM=reference.result().folder)
        job.wait_for_state("COMPLETED", "FAILED")
        expect(job, r"starting at step 0: .*undisturbed")
        steps = [step for step, _, _ in job.metrics()]
        if job.state()["JobState"] != "COMPLETED" or steps != list(range(1, TUNING_STEPS + 1)):
            raise Failed(f"ended as {job.state()['JobState']}, steps {steps}")
        return "ok"
    except (Failed, OSError, subprocess.TimeoutExpired) as error:
        return f"FAILED: {error}\n{job.told()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases whose name has one of these in it (default: all)")
    options = parser.parse_args()
    if not all(shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") for tool in ("slurmctld", "slurmd", "munged", "sbatch")):
        print("no Slurm here (Debian: slurm-wlm and munge)")
        return NOT_HERE
    chosen = [case for case in CASES if not options.names or any(name in case.name for name in options.names)]
    port = 20000 + os.getpid() % 300 * 40  # four for each cluster, below those that the system lends (32768)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="redllm-slurm-") as folder, ThreadPoolExecutor(len(CASES) + 3) as side_by_side:
        inputs = pathlib.Path(folder)
        make_inputs(inputs)
        make_pairs(inputs)
        (inputs / "data.ini").write_text(DATA.format(steps=STEPS, folder=inputs), encoding="utf-8")
        (inputs / "tuning.ini").write_text(TUNING_DATA.format(steps=TUNING_STEPS, folder=inputs), encoding="utf-8")
        (inputs / "another_processor.sh").write_text(ANOTHER_PROCESSOR, encoding="utf-8")
        cluster = Cluster(inputs / "cluster", port)
        try:
            print(f"dry_run      {dry_run(cluster, inputs)}", flush=True)
            reference = side_by_side.submit(undisturbed, cluster, inputs)
            more = [(name, side_by_side.submit(test, *arguments))
                    for name, test, *arguments in (("tuned", tune, cluster, inputs, reference),
                                                   ("unprivileged", unprivileged, port + 4 * (len(chosen) + 1)))
                    if not options.names or any(part in name for part in options.names)]
            outcomes = [side_by_side.submit(outcome_of, case, cluster, inputs, port + 4 * (i + 1), reference)
                        for i, case in enumerate(chosen)]
            reference.result()
            outcomes = [*((case.name, outcome) for case, outcome in zip(chosen, outcomes)), *more]
            for name, outcome in outcomes:
                failed += not outcome.result().startswith("ok")
                print(f"{name:12} {outcome.result()}", flush=True)
        finally:
            cluster.stop()
    print(f"{len(outcomes) - failed} of {len(outcomes)} cases as promised")
    return 1 if failed or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""tests/bench/gpu_training.py beside a PyTorch that ends as it is told to, without a GPU."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from stand_ins import PROGRAM, ROOT, SMI, TORCH


class Steps(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        for path, text in (("nvidia-smi", SMI), ("redllm-cuda", PROGRAM.replace("0.30", "0.60"))):
            (self.folder / path).write_text(text)
            (self.folder / path).chmod(0o755)
        (self.folder / "torch").mkdir()
        (self.folder / "torch" / "__init__.py").write_text(TORCH)
        self.out = self.folder / "steps.json"

    def start(self, torch: str, *words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tests/bench/gpu_training.py"), "--rounds", "1", *words, "--program",
             str(self.folder / "redllm-cuda"), "--out", str(self.out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(self.folder), "FAKE_TORCH": torch,
                 "FAKE_CALLS": str(self.folder / "calls")})

    def run_with(self, torch: str, *words: str) -> tuple:
        child = self.start(torch, *(words or ("red_150m",)))
        printed, complaints = child.communicate(timeout=60)
        return child.returncode, printed, complaints

    def test_all_well(self):
        code, printed, complaints = self.run_with("well")
        self.assertEqual(code, 0, printed + complaints)
        self.assertEqual(json.loads(self.out.read_text())["rows"][0]["ratio"], 2.0)

    def test_rounds_are_of_all_models_and_begun_by_another_program(self):
        self.run_with("well", "red_150m", "dec_150m", "--rounds", "2")
        calls = [next((f"{model} {attention}" for model in ("red_150m", "dec_150m") for attention in ("own", "cudnn")
                       if f"{model}.ini" in line and line.endswith(attention)), line)
                 for line in (self.folder / "calls").read_text().splitlines()]
        self.assertEqual(calls, ["red_150m own", "red_150m cudnn", "torch", "dec_150m own", "dec_150m cudnn", "torch",
                                 "red_150m cudnn", "torch", "red_150m own", "dec_150m cudnn", "torch", "dec_150m own"])
        self.assertEqual([row["rounds"] for row in json.loads(self.out.read_text())["rows"]], [2, 2])
        (self.folder / "calls").unlink()
        self.run_with("well", "red_150m", "dec_150m", "--alone")  # our attention of all models comes first
        self.assertEqual([line.split("=")[-1] for line in (self.folder / "calls").read_text().splitlines()], ["own", "own", "cudnn", "cudnn"])

    def test_where_pytorch_is_out_of_memory_both_get_half_the_batch(self):
        code, printed, complaints = self.run_with("memory for 4")
        self.assertEqual(code, 0, printed + complaints)
        row = json.loads(self.out.read_text())["rows"][0]
        self.assertEqual((row["batch"], [half["batch"] for half in row["halved"]], row["ratio"]), (4, [16, 8], 2.0))
        self.assertIn("halved: red_150m: PyTorch ran out of memory at a batch of 8, both get 4", printed)
        last = [line for line in (self.folder / "calls").read_text().splitlines() if line != "torch"][-1]
        self.assertIn("--train.micro_batch=4 ", last)

    def test_what_does_not_end_in_time_is_cut_off(self):
        begin = time.monotonic()
        code, printed, complaints = self.run_with("asleep", "red_150m", "dec_150m", "--seconds", "8")
        self.assertLess(time.monotonic() - begin, 20)
        self.assertEqual(code, 0, printed + complaints)
        self.assertIn("cut off: the 8 s are over", printed)
        rows = json.loads(self.out.read_text())["rows"]
        self.assertEqual((rows[0]["own"]["tokens_per_s"], rows[0]["unfinished"], rows[1]["unfinished"]), (1000.0, True, True))

    def test_a_peer_that_fails_is_no_success(self):
        for torch, words in (("memory", "PyTorch ran out of memory at a batch of 1: torch.OutOfMemoryError: CUDA out of memory. Tried"),
                             ("compiler", "PyTorch failed, it ended with 1: RuntimeError: no kernel image is available"),
                             ("killed", "PyTorch failed, it was killed by signal 9: it said nothing")):
            code, printed, _ = self.run_with(torch)
            self.assertEqual(code, 1, printed)
            self.assertIn(f"bar missed: red_150m: the ratio could not be judged: {words}", printed)
            self.assertNotIn("bar not judged: red_150m: no ratio", printed)
            self.assertEqual(len(json.loads(self.out.read_text())["below_bars"]), 1)

    def test_a_killed_run_keeps_its_figures(self):
        child = self.start("asleep", "red_150m")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            rows = json.loads(self.out.read_text())["rows"] if self.out.exists() else []
            if rows and "cudnn" in rows[0]["failed"]:
                break
            time.sleep(0.02)
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate(timeout=30)
        row = json.loads(self.out.read_text())["rows"][0]
        self.assertEqual((row["own"]["tokens_per_s"], row["unfinished"]), (1000.0, True))

    def test_what_cannot_be_planned_or_read_is_told_and_the_others_run(self):
        program = PROGRAM.replace("'plan --json')", "'plan --json') [[ $* != *dec_150m* ]] || { echo 'bad plan' >&2; exit 3; };")
        (self.folder / "redllm-cuda").write_text(program.replace("*red_150m*) echo", "*red_1b*) ;; *red_150m*) echo"))
        child = self.start("well", "dec_150m", "red_1b", "red_150m")
        printed, complaints = child.communicate(timeout=60)
        self.assertEqual(child.returncode, 1, printed + complaints)
        self.assertIn("bar missed: dec_150m: could not be judged: it cannot be planned: bad plan", printed)
        self.assertIn("bar missed: red_1b: with attention own it ended with 0: its last line is no JSON", printed)
        self.assertEqual(json.loads(self.out.read_text())["rows"][2]["tokens_per_s"], 1000.0)


if __name__ == "__main__":
    unittest.main()

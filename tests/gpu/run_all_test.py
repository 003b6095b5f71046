#!/usr/bin/env python3
"""tests/gpu/run_all.sh without a GPU: what it says it would run, what it refuses, and, with small scripts in the place of
nvidia-smi and of the programs, what it counts, skips and writes down."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from stand_ins import MPIRUN, PROGRAM, ROOT, SCRIPT, SMI, TRANSPORT, run, without

PARTS = ("kernels", "steps", "program", "ops", "golden", "pytorch", "memcheck", "layouts", "ranks", "comm", "sanitizer")


class Refusals(unittest.TestCase):
    def test_help(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        for part in PARTS:
            self.assertIn(f"\n  {part} ", done.stdout)

    def test_wrong_words(self):
        for words, reason in ((("--name", "x", "benches"), "there is no part benches"), (("--fast",), "there is no option --fast"),
                              (("--name",), "--name needs a value"), (("--rounds", "0"), "no number of rounds"),
                              (("--minutes", "ten"), "no number of minutes"), (("--models", "red_3b"), "no configs/models/red_3b.ini"),
                              (("--arch", "-fast"), "no list of architectures"),
                              (("--name", "a b"), "--name NAME is missing")):
            done = run(*words)
            self.assertEqual((done.returncode, reason in done.stderr), (2, True), done.stderr)

    def test_without_a_gpu(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("--name", "here", path=without(pathlib.Path(folder), "nvidia-smi"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("no GPU answers here", done.stderr)
        self.assertEqual(done.stdout, "")


class DryRun(unittest.TestCase):
    def test_says_what_would_run_and_runs_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            tests = pathlib.Path(folder) / "gpu_tests"
            tests.mkdir()
            (tests / "list.txt").write_text("ops_cuda_norm_gpu_test - shared\nops_cuda_matmul_gpu_test - shared\n"
                                            "golden_cuda_step_gpu_test 1 shared\n"
                                            "parallel_nccl_communicator_gpu_test 1,2,8 each\n")
            done = run("--dry-run", "--build", folder)
            left = sorted(path.name for path in pathlib.Path(folder).iterdir())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(left, ["gpu_tests"])
        for part in PARTS:
            self.assertIn(f"\n{part} ", "\n" + done.stdout)
        self.assertIn("launch/local.sh -n 8 ", done.stdout)
        checked = [line for line in done.stdout.splitlines() if "compute-sanitizer --tool racecheck" in line]
        self.assertEqual(len(checked), 1)  # products are not ours
        self.assertIn("ops_cuda_norm_gpu_test", checked[0])
        self.assertIn("parallel_nccl_communicator_gpu_test, 2 ranks:", done.stdout)
        self.assertIn("NCCL needs a GPU for each rank", done.stdout)  # 8 of them
        self.assertIn("env CUDA_VISIBLE_DEVICES=0 launch/local.sh -n 8 ", done.stdout)
        self.assertIn("golden_cuda_step_gpu_test, 2 ranks over NCCL: launch/local.sh -n 2 ", done.stdout)
        self.assertNotIn("golden_cuda_step_gpu_test, 4 ranks over NCCL:", done.stdout)
        only = run("--dry-run", "--build", folder, "ops", "steps")  # as they are named
        self.assertEqual([line.split()[0] for line in only.stdout.splitlines()], ["ops", "ops", "steps"])


class Run(unittest.TestCase):
    """On a machine that has a GPU, by its word, and no mpirun."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.tools, self.build = self.folder / "tools", self.folder / "build"
        (self.build / "gpu_tests").mkdir(parents=True)
        self.tools.mkdir()
        self.put(self.tools / "nvidia-smi", SMI)
        self.put(self.build / "redllm-cuda", PROGRAM)
        self.path = without(self.tools, "mpirun")

    def put(self, path: pathlib.Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def add_test(self, name: str, script: str, line: str) -> None:
        self.put(self.build / "gpu_tests" / name, "#!/bin/bash\n" + script)
        with open(self.build / "gpu_tests" / "list.txt", "a") as file:
            file.write(f"{name} {line}\n")

    def run_parts(self, *parts: str, **environment: str) -> tuple:
        done = run("--name", "test", "--no-install", "--no-build", "--rounds", "1", "--build", str(self.build), *parts,
                   path=self.path, REDLLM_RESULTS=str(self.folder / "results"), **environment)
        return done, self.result()["parts"]

    def result(self) -> dict:
        return json.loads((self.folder / "results" / "test_gpu.json").read_text())

    def verdicts(self, part: dict) -> dict:
        return {row["name"]: (row["verdict"], row["detail"]) for row in part["rows"]}

    def test_counts_what_passes_fails_and_is_skipped(self):
        self.add_test("ops_cuda_norm_gpu_test", "echo '[  PASSED  ] 7 tests.'", "- shared")
        self.add_test("ops_cuda_matmul_gpu_test", "echo 'wrong product'; exit 1", "- shared")
        self.add_test("parallel_nccl_gpu_test", "echo '[  PASSED  ] 3 tests.'", "1,2 each")
        done, result = self.run_parts("kernels", "ranks")
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 passed, 1 failed, 1 skipped", done.stdout)
        self.assertIn("failed: kernels ops_cuda_matmul_gpu_test: ended with 1", done.stdout)
        self.assertIn("skipped, 1: there is no mpirun", done.stdout)
        self.assertIn("wrong product", done.stderr)
        verdicts = self.verdicts(result["kernels"]) | self.verdicts(result["ranks"])
        result = result["ranks"]
        self.assertEqual(verdicts["ops_cuda_norm_gpu_test"], ("ok", "[  PASSED  ] 7 tests."))
        self.assertEqual(verdicts["ops_cuda_matmul_gpu_test"][0], "failed")
        self.assertEqual(verdicts["parallel_nccl_gpu_test"][0], "ok")
        self.assertEqual(verdicts["parallel_nccl_gpu_test, 2 ranks"], ("skipped", "there is no mpirun"))
        self.assertEqual(result["gpus"][0]["name"], "NVIDIA H100 80GB HBM3")
        self.assertEqual(result["gpus"][0]["driver_version"], "580.65.06")
        self.assertIn("cublaslt", result["versions"])

    def test_all_well_ends_with_0(self):
        self.add_test("golden_cuda_step_gpu_test", "[ \"$REDLLM_GOLDEN_STEPS\" = 40 ]", "1 shared")
        done, _ = self.run_parts("golden")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_keeps_figures_of_benchmarks(self):
        done, result = self.run_parts("ops", "comm")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(result["ops"]["figures"]["ops-red_150m"]["ops"][0]["share"], 0.5)
        self.assertIn("comm         all", done.stdout)
        self.assertEqual(self.verdicts(result["comm"]), {"all": ("skipped", "there is no mpirun")})

    def test_a_part_that_runs_again_leaves_the_others(self):
        done, _ = self.run_parts("ops", "comm")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        before = self.result()
        for part in before["parts"].values():
            part["date"], part["revision"] = "2026-01-01", "abc"
        (self.folder / "results" / "test_gpu.json").write_text(json.dumps(before))
        self.put(self.build / "redllm-cuda", PROGRAM.replace("0.5", "0.25"))
        _, after = self.run_parts("ops")
        self.assertEqual(after["comm"], before["parts"]["comm"])
        self.assertEqual(after["ops"]["figures"]["ops-red_150m"]["ops"][0]["share"], 0.25)
        self.assertNotEqual((after["ops"]["date"], after["ops"]["revision"]), ("2026-01-01", "abc"))

    def test_broken_figures_lose_no_others(self):
        self.put(self.build / "redllm-cuda", PROGRAM.replace("'bench ops') ", "'bench ops') [[ $* != *dec_150m* ]] || { "
                                                             "echo '{\"ops\": ['; exit; }; "))
        done, result = self.run_parts("ops")
        self.assertEqual(done.returncode, 1)
        self.assertIn("ops-dec_150m.json has no figures", done.stderr)
        self.assertEqual(list(result["ops"]["figures"]), ["ops-red_150m"])
        self.assertEqual(len(result["ops"]["rows"]), 2)
        # A former file that cannot be read is kept, too.
        (self.folder / "results" / "test_gpu.json").write_text('{"parts": {"comm": ')
        done, result = self.run_parts("comm")
        self.assertEqual(done.returncode, 1)
        self.assertIn("it is test_gpu.json.unreadable-1 now", done.stderr)
        self.assertEqual((self.folder / "results" / "test_gpu.json.unreadable-1").read_text(), '{"parts": {"comm": ')
        self.assertEqual(list(result), ["comm"])

    def test_layouts_share_one_gpu_and_go_over_nccl_where_each_has_one(self):
        self.put(self.tools / "mpirun", MPIRUN)
        seen = self.folder / "seen"
        for name in ("golden_cuda_step_gpu_test", "golden_cuda_adafactor_gpu_test"):
            self.add_test(name, TRANSPORT, "1 shared")
        done, result = self.run_parts("layouts", FAKE_GPUS="4", FAKE_SEEN=str(seen))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(seen.read_text().split(), 4 * ["0", "all"] + 2 * ["0"])
        verdicts = self.verdicts(result["layouts"])
        self.assertEqual(verdicts["golden_cuda_step_gpu_test, 8 ranks on one GPU"][0], "ok")
        self.assertEqual(verdicts["golden_cuda_step_gpu_test, 8 ranks over NCCL"],
                         ("skipped", "NCCL needs a GPU for each rank, here are 4"))
        seen.unlink()
        done, result = self.run_parts("layouts", FAKE_GPUS="8", CUDA_VISIBLE_DEVICES="5,7", FAKE_SEEN=str(seen))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(seen.read_text().split(), 2 * ["5", "5,7"] + 4 * ["5"])
        # What went another way than it was to is no success.
        done, result = self.run_parts("layouts", FAKE_GPUS="2", CUDA_VISIBLE_DEVICES="0,1", FAKE_SEEN="/dev/null",
                                      FAKE_NO_NCCL="1")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("it did not say 'ranks exchange GPU memory over NCCL'",
                      self.verdicts(result["layouts"])["golden_cuda_step_gpu_test, 2 ranks over NCCL"][1])

    def test_hidden_and_divided_gpus_are_counted_as_cuda_shows_them(self):
        self.add_test("parallel_nccl_gpu_test", "true", "1,2 each")
        done, result = self.run_parts("ranks", FAKE_GPUS="4", FAKE_MIG="1")
        self.assertEqual(self.verdicts(result["ranks"])["parallel_nccl_gpu_test, 2 ranks"][0], "skipped")
        done = run("--name", "test", "--no-build", "--build", str(self.build), path=self.path, CUDA_VISIBLE_DEVICES="-1,0")
        self.assertEqual((done.returncode, "hides every GPU" in done.stderr), (2, True), done.stderr)

    def interrupted(self, by: int) -> tuple:
        """A run of two tests that is ended in the second: its code, and its parts."""
        pid = self.folder / "pid"
        self.add_test("ops_cuda_a_gpu_test", "true", "- shared")
        self.add_test("ops_cuda_b_gpu_test", f"echo $$ >{pid}; sleep 60", "- shared")
        words = [str(SCRIPT), "--name", "test", "--no-install", "--no-build", "--build", str(self.build), "kernels", "ops"]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                 env={**os.environ, "PATH": self.path, "REDLLM_RESULTS": str(self.folder / "results")})
        deadline = time.monotonic() + 30
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(by)
        code = child.wait(timeout=30)
        if by == signal.SIGKILL:
            os.kill(int(pid.read_text()), signal.SIGKILL)  # which nobody is left to do
        else:
            self.assertFalse(pathlib.Path(f"/proc/{pid.read_text().strip()}").exists())
        return code, self.result()["parts"]

    def test_what_is_interrupted_keeps_what_it_has(self):
        for by, code in ((signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)):
            shutil.rmtree(self.build / "gpu_tests")
            (self.build / "gpu_tests").mkdir()
            (self.folder / "pid").unlink(missing_ok=True)
            ended, parts = self.interrupted(by)
            self.assertEqual(ended, code)
            self.assertEqual((list(parts), parts["kernels"]["unfinished"]), (["kernels"], True))
            self.assertEqual(self.verdicts(parts["kernels"])["ops_cuda_a_gpu_test"][0], "ok")
            shutil.rmtree(self.folder / "results")

    def test_ends_within_its_minutes(self):
        for name, script in (("a", "true"), ("b", "trap '' TERM; sleep 2; sleep 60"), ("c", "true")):
            self.add_test(f"ops_cuda_{name}_gpu_test", script, "- shared")
        begin = time.monotonic()
        done, result = self.run_parts("kernels", "ops", "--minutes", "0.4")
        self.assertLess(time.monotonic() - begin, 24)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("1 passed, 0 failed, 0 skipped, 3 cut off", done.stdout)
        self.assertIn("cut off, 3: the 0.4 minutes were over", done.stdout)
        self.assertEqual(list(result), ["kernels"])
        self.assertTrue(result["kernels"]["unfinished"])
        self.assertEqual([row["verdict"] for row in result["kernels"]["rows"]], ["ok", "cut", "cut"])

    def test_what_is_not_built_has_failed_and_only_skips_are_no_success(self):
        done, result = self.run_parts("golden")
        self.assertEqual((done.returncode, self.verdicts(result["golden"])["all tests"][0]), (1, "failed"))
        with open(self.build / "gpu_tests" / "list.txt", "a") as file:
            file.write("golden_cuda_step_gpu_test 1 shared\n")
        done, result = self.run_parts("golden")
        self.assertEqual((done.returncode, self.verdicts(result["golden"])["golden_cuda_step_gpu_test"][0]), (1, "failed"))
        done, result = self.run_parts("comm")
        self.assertEqual((done.returncode, "nothing ran" in done.stdout), (1, True), done.stdout)

    def test_runs_in_the_order_that_is_named(self):
        self.add_test("ops_cuda_a_gpu_test", "true", "- shared")
        done, _ = self.run_parts("ops", "kernels")
        self.assertEqual([line.split()[1] for line in done.stdout.splitlines() if line.startswith("ok")], ["ops", "ops", "kernels"])

    def test_without_git_no_row_is_lost(self):
        self.add_test("ops_cuda_a_gpu_test", "true", "- shared")
        (self.tools / "git").unlink()
        self.assertIsNone(shutil.which("git", path=self.path))
        _, result = self.run_parts("kernels")
        self.assertEqual([row["verdict"] for row in result["kernels"]["rows"]], ["ok"])
        self.assertEqual(result["kernels"]["gpus"][0]["driver_version"], "580.65.06")

    def test_results_and_logs_lie_in_a_folder_of_their_own(self):
        self.add_test("ops_cuda_a_gpu_test", "echo 'three GPUs'", "- shared")
        self.add_test("ops_cuda_b_gpu_test", "echo 'an illegal address' >&2; exit 1", "- shared")
        out = self.folder / "out"
        run("--name", "test", "--no-install", "--no-build", "--build", str(self.build), "--out", str(out), "kernels", "ops", path=self.path)
        self.assertEqual(sorted(path.name for path in out.iterdir()), ["test_gpu.json", "test_gpu.log"])
        self.assertEqual(list(json.loads((out / "test_gpu.json").read_text())["parts"]), ["kernels", "ops"])
        for words in ("=== kernels ops_cuda_a_gpu_test\nthree GPUs", "an illegal address"):
            self.assertIn(words, (out / "test_gpu.log").read_text())

    def test_a_sanitizer_that_does_not_know_the_device_is_skipped(self):
        self.put(self.tools / "compute-sanitizer", "#!/bin/bash\necho '========= Error: Device not supported'; exit 1\n")
        self.add_test("ops_cuda_a_gpu_test", "true", "- shared")
        self.add_test("ops_cuda_b_gpu_test", "true", "- shared")
        _, result = self.run_parts("memcheck")
        self.assertEqual(self.verdicts(result["memcheck"]), {"memcheck ops_cuda_a_gpu_test": ("skipped", "it says: Device not supported")})

    def test_nvidias_libraries_come_from_pythons_packages(self):
        folder = self.folder / "python" / "nvidia" / "cu13" / "lib"
        folder.mkdir(parents=True)
        (folder / "libcublasLt.so.13").touch()
        (self.folder / "lib").mkdir()
        self.add_test("ops_cuda_a_gpu_test", 'echo "$LD_LIBRARY_PATH"', "- shared")
        self.run_parts("kernels", "--lib", str(self.folder / "lib"), PYTHONPATH=str(self.folder / "python"))
        seen = (self.build / "gpu_run" / "kernels-ops_cuda_a_gpu_test.log").read_text().strip().split(":")
        self.assertEqual(seen[:2], [str(self.folder / "lib"), str(folder)])
        (self.folder / "lib" / "libcublasLt.so.13").touch()
        self.run_parts("kernels", "--lib", str(self.folder / "lib"), PYTHONPATH=str(self.folder / "python"))
        self.assertNotIn(str(folder), (self.build / "gpu_run" / "kernels-ops_cuda_a_gpu_test.log").read_text())

    def test_steps_are_held_to_the_bars(self):
        done, result = self.run_parts("steps", "pytorch", "--models", "red_150m,dec_150m,red_1b,dec_1b,red_2b,dec_2b")
        self.assertEqual(done.returncode, 1)
        steps = result["steps"]["figures"]["steps"]
        rows = {row["model"]: row for row in steps["rows"]}
        self.assertEqual(rows["red_150m"]["mfu"], 0.45)
        self.assertEqual(rows["red_150m"]["attention"], "own")
        self.assertEqual(rows["red_150m"]["failed"], {"cudnn": {"code": 2, "reason": "there is no cuDNN"}})
        self.assertEqual(rows["red_150m"]["batch"], 16)
        missed = "\n".join(steps["below_bars"])
        self.assertNotIn("red_150m", missed)
        self.assertIn("dec_150m: 30.0% MFU, the bar is 40%", missed)
        self.assertIn("red_1b: 30.0% MFU, the bar is 50%", missed)
        self.assertIn("bar not judged: red_150m: not with cuDNN's attention", done.stdout)
        self.assertEqual(rows["red_1b"]["attention"], "own")  # what ran was ours
        self.assertEqual(rows["red_1b"]["failed"]["cudnn"]["reason"], "cuDNN took no attention: no such heads")
        self.assertIn("dec_1b: with attention cudnn it ended with 134: an illegal address", missed)
        self.assertIn("red_2b: 30.0% MFU, the bar is 50%", missed)
        self.assertNotIn("dec_2b", rows)
        self.assertIn("left out: dec_2b takes 177.0 GiB by its plan, and the GPU has 79.6", done.stdout)
        self.assertEqual(self.verdicts(result["pytorch"])["PyTorch"][0], "skipped")


if __name__ == "__main__":
    unittest.main()

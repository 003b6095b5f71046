#!/usr/bin/env python3
"""tests/gpu/run_all.sh without a GPU: what it says it would run, what it refuses, and, with small scripts in the place of
nvidia-smi and of the programs, what it counts, skips and writes down."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest

from stand_ins import MPIRUN, PROGRAM, SMI, TORCH, TRANSPORT

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "gpu" / "run_all.sh"


def run(*words: str, path: str | None = None, **more: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **more}
    if path is not None:
        environment["PATH"] = path
    return subprocess.run([str(SCRIPT), *words], capture_output=True, text=True, cwd=ROOT, env=environment, check=False)


def without(program: str, first: pathlib.Path) -> str:
    """A PATH that begins with `first` and in whose other folders such a program is not found: links to all others."""
    for folder in os.environ["PATH"].split(os.pathsep):
        for found in pathlib.Path(folder).glob("*") if pathlib.Path(folder).is_dir() else ():
            link = first / found.name
            if found.name not in (program, "cmake") and not link.exists() and not link.is_symlink():
                link.symlink_to(found)
    return str(first)


class Refusals(unittest.TestCase):
    def test_help(self):
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        for part in ("conformance", "golden", "layouts", "sanitizer", "ops", "comm", "steps"):
            self.assertIn(f"\n  {part} ", done.stdout)

    def test_wrong_words(self):
        for words, reason in ((("--name", "x", "benches"), "there is no part benches"), (("--fast",), "there is no option --fast"),
                              (("--name",), "--name needs a value"), (("--rounds", "0"), "no number of rounds"),
                              (("--name", "a b"), "--name NAME is missing")):
            done = run(*words)
            self.assertEqual((done.returncode, reason in done.stderr), (2, True), done.stderr)

    def test_without_a_gpu(self):
        with tempfile.TemporaryDirectory() as folder:
            done = run("--name", "here", path=without("nvidia-smi", pathlib.Path(folder)))
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
        for part in ("conformance", "golden", "layouts", "sanitizer", "ops", "comm", "steps"):
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
        only = run("--dry-run", "--build", folder, "ops")
        self.assertEqual([line.split()[0] for line in only.stdout.splitlines()], ["ops", "ops"])


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
        self.path = without("mpirun", self.tools)

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
        done, result = self.run_parts("conformance")
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 passed, 1 failed, 1 skipped", done.stdout)
        self.assertIn("wrong product", done.stderr)
        result = result["conformance"]
        verdicts = self.verdicts(result)
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
        self.assertEqual(seen.read_text().split(), 2 * ["0", "all", "0", "all", "0"])
        verdicts = self.verdicts(result["layouts"])
        self.assertEqual(verdicts["golden_cuda_step_gpu_test, 8 ranks on one GPU"][0], "ok")
        self.assertEqual(verdicts["golden_cuda_step_gpu_test, 8 ranks over NCCL"],
                         ("skipped", "NCCL needs a GPU for each rank, here are 4"))
        seen.unlink()
        done, result = self.run_parts("layouts", FAKE_GPUS="8", CUDA_VISIBLE_DEVICES="5,7", FAKE_SEEN=str(seen))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(seen.read_text().split(), 2 * ["5", "5,7", "5", "5"])
        # What went another way than it was to is no success.
        done, result = self.run_parts("layouts", FAKE_GPUS="2", CUDA_VISIBLE_DEVICES="0,1", FAKE_SEEN="/dev/null",
                                      FAKE_NO_NCCL="1")
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("it did not say 'ranks exchange GPU memory over NCCL'",
                      self.verdicts(result["layouts"])["golden_cuda_step_gpu_test, 2 ranks over NCCL"][1])

    def test_hidden_and_divided_gpus_are_counted_as_cuda_shows_them(self):
        self.add_test("parallel_nccl_gpu_test", "true", "1,2 each")
        done, result = self.run_parts("conformance", FAKE_GPUS="4", FAKE_MIG="1")
        self.assertEqual(self.verdicts(result["conformance"])["parallel_nccl_gpu_test, 2 ranks"][0], "skipped")
        done = run("--name", "test", "--no-build", "--build", str(self.build), path=self.path, CUDA_VISIBLE_DEVICES="-1,0")
        self.assertEqual((done.returncode, "hides every GPU" in done.stderr), (2, True), done.stderr)

    def test_what_is_interrupted_keeps_what_it_has(self):
        pid = self.folder / "pid"
        self.add_test("ops_cuda_a_gpu_test", "true", "- shared")
        self.add_test("ops_cuda_b_gpu_test", f"echo $$ >{pid}; sleep 60", "- shared")
        words = [str(SCRIPT), "--name", "test", "--no-install", "--no-build", "--build", str(self.build), "conformance", "ops"]
        child = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 env={**os.environ, "PATH": self.path, "REDLLM_RESULTS": str(self.folder / "results")})
        deadline = time.monotonic() + 30
        while not (pid.exists() and pid.read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        _, complaints = child.communicate(timeout=30)
        self.assertEqual(child.returncode, 130, complaints)
        self.assertFalse(pathlib.Path(f"/proc/{pid.read_text().strip()}").exists())
        parts = self.result()["parts"]
        self.assertEqual((list(parts), parts["conformance"]["interrupted"]), (["conformance"], True))
        self.assertEqual(self.verdicts(parts["conformance"])["ops_cuda_a_gpu_test"][0], "ok")

    def test_steps_are_held_to_the_bars(self):
        done, result = self.run_parts("steps")
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
        self.assertIn("bar not judged: red_150m: no ratio", done.stdout)
        self.assertIn("bar not judged: red_150m: not with cuDNN's attention", done.stdout)
        self.assertEqual(rows["red_1b"]["attention"], "own")  # what ran was ours
        self.assertEqual(rows["red_1b"]["failed"]["cudnn"]["reason"], "cuDNN took no attention: no such heads")
        self.assertIn("dec_1b: with attention cudnn it ended with 134: an illegal address", missed)
        self.assertIn("red_2b: 30.0% MFU, the bar is 50%", missed)
        self.assertNotIn("dec_2b", rows)
        self.assertIn("left out: dec_2b takes 177.0 GiB by its plan, and the GPU has 79.6", done.stdout)


class Pack(unittest.TestCase):
    def test_has_programs_and_their_libraries_and_unpacks_where_the_script_looks(self):
        (ROOT / "build").mkdir(exist_ok=True)
        build = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "build", prefix="pack-test-"))
        self.addCleanup(shutil.rmtree, build)
        (build / "gpu_tests").mkdir()
        (build / "gpu_tests" / "list.txt").write_text("ops_cuda_a_gpu_test - each\n")
        for path in ("redllm-cuda", "gpu_tests/ops_cuda_a_gpu_test"):
            shutil.copy(shutil.which("find"), build / path)  # any program that is linked with a library
        inside = build.relative_to(ROOT)
        done = run("--no-build", "--build", str(inside), "--pack", str(build / "all.tar"))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("packed 2 programs", done.stdout)
        with tarfile.open(build / "all.tar") as tar:
            names = tar.getnames()
        for name in (f"{inside}/redllm-cuda", f"{inside}/gpu_tests/ops_cuda_a_gpu_test", f"{inside}/gpu_tests/list.txt", "revision.txt",
                     "launch/local.sh", "tests/gpu/run_all.sh"):
            self.assertIn(name, names)
        done = run("--no-build", "--build", str(build), "--pack", str(build / "all.tar"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("a pack takes a folder inside this one", done.stderr)


class Steps(unittest.TestCase):
    """tests/bench/gpu_training.py beside a PyTorch that ends as it is told to."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        for path, text in (("nvidia-smi", SMI), ("redllm-cuda", PROGRAM.replace("0.30", "0.60"))):
            (self.folder / path).write_text(text)
            (self.folder / path).chmod(0o755)
        (self.folder / "torch").mkdir()
        (self.folder / "torch" / "__init__.py").write_text(TORCH)
        self.out = self.folder / "steps.json"

    def start(self, torch: str, *models: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "tests/bench/gpu_training.py"), *models, "--program", str(self.folder / "redllm-cuda"),
             "--rounds", "1", "--out", str(self.out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(self.folder), "FAKE_TORCH": torch})

    def run_with(self, torch: str) -> tuple:
        child = self.start(torch, "red_150m")
        printed, complaints = child.communicate(timeout=60)
        return child.returncode, printed, complaints

    def test_all_well(self):
        code, printed, complaints = self.run_with("well")
        self.assertEqual(code, 0, printed + complaints)
        self.assertEqual(json.loads(self.out.read_text())["rows"][0]["ratio"], 2.0)

    def test_a_peer_that_fails_is_no_success(self):
        for torch, words in (("memory", "PyTorch ran out of memory at a batch of 16: torch.OutOfMemoryError: CUDA out of memory. Tried"),
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

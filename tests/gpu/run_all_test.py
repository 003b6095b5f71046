#!/usr/bin/env python3
"""tests/gpu/run_all.sh without a GPU: what it says it would run, what it refuses, and, with small scripts in the place of
nvidia-smi and of the programs, what it counts, skips and writes down."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "gpu" / "run_all.sh"
SMI = """#!/bin/bash
case $1 in
  -L) echo 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)' ;;
  --query-gpu=memory.total) echo 81559 ;;
  *) echo 'NVIDIA H100 80GB HBM3, 580.65.06, 81559 MiB, 1980 MHz, 2619 MHz, 700.00 W, Enabled, Disabled, 00000000:19:00.0' ;;
esac
"""
PROGRAM = """#!/bin/bash
case "$1 $2" in
  'bench ops') echo 'a line for people'; echo '{"device": "GPU", "ops": [{"op": "q, k, v", "share": 0.5}]}' ;;
  'plan --json')
    case "$*" in
      *dec_2b*) bytes=200 ;;
      *) bytes=60 ;;
    esac
    echo '{"largest_rank_bytes":' ${bytes}000000000', "ranks": [{"memory": {"checkpoint_copy": 10000000000}}]}' ;;
  'bench step')
    case "$*" in
      *dec_1b*cudnn*) echo 'an illegal address' >&2; exit 134 ;;
      *cudnn*) echo 'there is no cuDNN' >&2; exit 2 ;;
      *red_150m*) echo '{"tokens_per_s": 1000.0, "mfu": 0.45}' ;;
      *) echo '{"tokens_per_s": 500.0, "mfu": 0.30}' ;;
    esac ;;
  *) exit 1 ;;
esac
"""


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

    def run_parts(self, *parts: str) -> tuple:
        done = run("--name", "test", "--no-install", "--no-build", "--rounds", "1", "--build", str(self.build), *parts,
                   path=self.path, REDLLM_RESULTS=str(self.folder / "results"))
        result = json.loads((self.folder / "results" / "test_gpu.json").read_text())
        return done, result

    def test_counts_what_passes_fails_and_is_skipped(self):
        self.add_test("ops_cuda_norm_gpu_test", "echo '[  PASSED  ] 7 tests.'", "- shared")
        self.add_test("ops_cuda_matmul_gpu_test", "echo 'wrong product'; exit 1", "- shared")
        self.add_test("parallel_nccl_gpu_test", "echo '[  PASSED  ] 3 tests.'", "1,2 each")
        done, result = self.run_parts("conformance")
        self.assertEqual(done.returncode, 1)
        self.assertIn("2 passed, 1 failed, 1 skipped", done.stdout)
        self.assertIn("wrong product", done.stderr)
        verdicts = {row["name"]: (row["verdict"], row["detail"]) for row in result["rows"]}
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
        self.assertEqual(result["figures"]["ops-red_150m"]["ops"][0]["share"], 0.5)
        self.assertIn("comm         all", done.stdout)

    def test_steps_are_held_to_the_bars(self):
        done, result = self.run_parts("steps")
        self.assertEqual(done.returncode, 1)
        rows = {row["model"]: row for row in result["figures"]["steps"]["rows"]}
        self.assertEqual(rows["red_150m"]["mfu"], 0.45)
        self.assertEqual(rows["red_150m"]["attention"], "own")
        self.assertEqual(rows["red_150m"]["failed"], {"cudnn": 2})
        self.assertEqual(rows["red_150m"]["batch"], 16)
        missed = "\n".join(result["figures"]["steps"]["below_bars"])
        self.assertNotIn("red_150m", missed)
        self.assertIn("dec_150m: 30.0% MFU, the bar is 40%", missed)
        self.assertIn("red_1b: 30.0% MFU, the bar is 50%", missed)
        self.assertIn("bar not judged: red_150m: no ratio", done.stdout)
        self.assertIn("bar not judged: red_150m: not with cuDNN's attention", done.stdout)
        self.assertIn("dec_1b: with attention cudnn it ended with 134", missed)
        self.assertIn("red_2b: 30.0% MFU, the bar is 50%", missed)
        self.assertNotIn("dec_2b", rows)
        self.assertIn("left out: dec_2b takes 177.0 GiB by its plan, and the GPU has 79.6", done.stdout)


if __name__ == "__main__":
    unittest.main()

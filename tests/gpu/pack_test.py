#!/usr/bin/env python3
"""A day on a rented machine, rehearsed: tests/gpu/run_all.sh --pack, then the pack in an empty folder, with a PATH that has no git, no
CMake and no Open MPI, a stand-in for nvidia-smi, and, in the place of programs for a GPU, the same over the fakes of CUDA's libraries.
Those are named by variables: REHEARSAL_PROGRAM, _CPU_PROGRAM, _OP_TEST, _GOLDEN_TEST, _RANKS_TEST, _NVML."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

from stand_ins import ROOT, SMI, run, without

OPEN_MPI = ROOT / "build" / "open_mpi_5" / "bin" / "mpirun"
PROGRAMS = {"redllm-cuda": "PROGRAM", "redllm": "CPU_PROGRAM", "gpu_tests/ops_cuda_norm_gpu_test": "OP_TEST",
            "gpu_tests/golden_cuda_adafactor_gpu_test": "GOLDEN_TEST", "gpu_tests/golden_cuda_step_gpu_test": "GOLDEN_TEST",
            "gpu_tests/parallel_cuda_staged_communicator_gpu_test": "RANKS_TEST"}
LIST = """ops_cuda_norm_gpu_test - shared
golden_cuda_adafactor_gpu_test 1 shared
golden_cuda_step_gpu_test 1 shared
parallel_cuda_staged_communicator_gpu_test 1,3 shared
"""
MODEL = """[model]
name = rehearsal
kind = red
vocab_size = 512
d_model = 32
d_ff = 64
num_heads = 2
head_dim = 16
encoder_layers = 1
decoder_layers = 1
"""
ABSENT = ("git", "cmake", "ninja", "nvcc", "mpirun", "mpiexec", "orterun", "orted", "prterun", "prte", "prted", "ompi_info", "ompirun_wrapper",
          "compute-sanitizer", "nvidia-smi")
# Every system's own.
LIBC = re.compile(r"(linux-vdso|ld-linux|libc|libm|libdl|libpthread|librt|libresolv|libutil)[-.].*")


@unittest.skipUnless(OPEN_MPI.exists(), "build/open_mpi_5 is not there (launch/python_packages.sh mpi)")
@unittest.skipUnless("REHEARSAL_PROGRAM" in os.environ, "REHEARSAL_PROGRAM names no program over the fakes")
class Rehearsal(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp())
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        build = pathlib.Path(tempfile.mkdtemp(dir=ROOT / "build", prefix="rehearsal-"))
        try:
            (build / "gpu_tests").mkdir()
            (build / "gpu_tests" / "list.txt").write_text(LIST)
            for name, variable in PROGRAMS.items():
                shutil.copy(os.environ[f"REHEARSAL_{variable}"], build / name)
            cls.build = str(build.relative_to(ROOT))
            cls.packed = run("--no-install", "--no-build", "--build", cls.build, "--without-nvidia", "--pack", str(cls.folder / "all.tar.gz"))
            cls.outside = run("--no-install", "--no-build", "--build", str(build), "--pack", str(cls.folder / "all.tar.gz"))
        finally:
            shutil.rmtree(build)
        if cls.packed.returncode != 0:
            raise AssertionError(cls.packed.stderr)
        cls.there, cls.tools = cls.folder / "there", cls.folder / "tools"
        cls.there.mkdir()
        cls.tools.mkdir()
        subprocess.run([sys.executable, "-m", "tarfile", "-e", str(cls.folder / "all.tar.gz"), str(cls.there)], check=True)
        (cls.there / "configs" / "models" / "rehearsal.ini").write_text(MODEL)
        (cls.tools / "nvidia-smi").write_text(SMI)
        (cls.tools / "nvidia-smi").chmod(0o755)
        without(cls.tools, *ABSENT)

    def run_there(self, *words: str, **more: str) -> tuple:
        """A run in the unpacked folder, and its parts."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        done = subprocess.run(
            ["bash", "tests/gpu/run_all.sh", "--name", "rented", "--no-install", "--no-build", "--lib", "lib", "--build", self.build, "--out",
             str(out), "--models", "rehearsal", "--minutes", "4", *words], capture_output=True, text=True, cwd=self.there, check=False,
            env={"PATH": str(self.tools), "HOME": str(self.folder), "RED_NVML": os.environ["REHEARSAL_NVML"],
                 "FAKE_NVML": "sm=1980 memory=2619 temperature=61 milliwatts=412000 limit=700000 ecc=0 reasons=0", **more})
        return done, json.loads((out / "rented_gpu.json").read_text())["parts"]

    def assert_all_well(self, done: subprocess.CompletedProcess, parts: dict) -> None:
        log = (self.folder / "out" / "rented_gpu.log").read_text()
        self.assertEqual(done.returncode, 0, done.stdout + log[-3000:])
        for part in parts.values():
            self.assertNotIn("unfinished", part)
            self.assertNotIn("unknown", part["revision"])  # as it was when it was packed

    def test_says_what_is_in_it(self):
        self.assertRegex(self.packed.stdout, r"packed 6 programs and \d+ libraries into .*, packed \d+ MiB")
        self.assertEqual(self.outside.returncode, 2)
        self.assertIn("a pack takes a folder inside this one", self.outside.stderr)

    def test_has_every_library_but_those_of_the_system_and_of_nvidia(self):
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{self.there}/lib/mpi/lib:{self.there}/lib"}
        programs = [self.there / self.build / name for name in PROGRAMS] + [self.there / "lib/mpi/bin/prterun"]
        listed = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=True, env=environment).stdout
        found = re.findall(r"^\s*(\S+) => (\S+)", listed, re.MULTILINE)
        self.assertGreater(len(found), 100)
        self.assertEqual([pair for pair in found if not LIBC.match(pair[0]) and not pair[1].startswith(str(self.there))], [])
        self.assertEqual([path.name for path in (self.there / "lib").glob("lib*") if re.match("lib(cu(da|blas|dnn)|nccl|nvrtc)", path.name)], [])

    def test_the_program_and_the_kernels(self):
        done, parts = self.run_there("program", "kernels")
        self.assert_all_well(done, parts)
        verdicts = {row["name"]: row["verdict"] for part in parts.values() for row in part["rows"]}
        self.assertEqual(set(verdicts.values()), {"ok"})
        for name in ("repeat has the same bits", "resumed run has the same bits", "preflight reads the GPU's sensors", "generate on the CPU",
                     "ops_cuda_norm_gpu_test"):
            self.assertIn(name, verdicts)
        figures = parts["program"]["figures"]
        self.assertEqual(figures["program-preflight"]["ranks"][0]["gpu"]["temperature_c"], 61)
        self.assertGreater(figures["program-bench_generate_rehearsal"]["decode_tokens_per_s"], 0)

    def test_ranks_under_the_mpirun_that_it_brings(self):
        self.assertIsNone(shutil.which("mpirun", path=str(self.tools)))
        done, parts = self.run_there("ranks", "layouts")
        self.assert_all_well(done, parts)
        rows = {row["name"]: row["verdict"] for part in parts.values() for row in part["rows"]}
        self.assertEqual(rows["parallel_cuda_staged_communicator_gpu_test, 3 ranks"], "ok")
        self.assertEqual(rows["golden_cuda_step_gpu_test, 8 ranks on one GPU"], "ok")
        self.assertEqual(parts["layouts"]["versions"]["mpirun"][0][:18], "mpirun (Open MPI) ")
        self.assertRegex(done.stdout, r"skipped, \d: NCCL needs a GPU for each rank, here are 1")

    def test_pytorch_is_the_first_that_sees_the_gpu(self):
        """build/python-bench may have one for CPUs."""
        for path, sees in (("build/python-bench/bin/python3", False), ("there/python3", True)):
            path = self.there / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/bin/bash\ncase \"$*\" in *cuda.is_available*) exit {0 if sees else 1} ;; *gpu_training*) echo '| {path} |' ;;\n"
                            f"  *) exec {sys.executable} \"$@\" ;;\nesac\n")
            path.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.there / "build" / "python-bench")
        done, parts = self.run_there("pytorch", PATH=f"{self.there}/there:{self.tools}")
        self.assertIn(f"| {self.there}/there/python3 |", done.stdout)
        self.assertEqual([row["verdict"] for row in parts["pytorch"]["rows"]], ["ok"])


if __name__ == "__main__":
    unittest.main()

#!/usr/bin/env python3
"""What the benchmarks do with figures: medians, the better peer, rows that are kept when a program fails later. No program is timed."""
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import engine  # noqa: E402
import generation  # noqa: E402
import training  # noqa: E402


class Harness(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        quiet = contextlib.ExitStack()
        self.addCleanup(quiet.close)
        for context in (mock.patch.object(engine, "RESULTS", self.folder), contextlib.redirect_stdout(io.StringIO()),
                        contextlib.redirect_stderr(io.StringIO())):
            quiet.enter_context(context)

    def kept(self, name="x"):
        return json.loads((self.folder / f"{name}.json").read_text())


class ResultsTest(Harness):
    def test_each_row_is_kept_at_once(self):
        results = engine.Results("x")
        results.take("a", lambda: {"case": "a"})
        self.assertEqual((self.kept()["rows"], self.kept()["complete"]), ([{"case": "a"}], False))
        results.take("b", lambda: [{"case": "b"}, {"case": "c"}])
        self.assertEqual([row["case"] for row in self.kept()["rows"]], ["a", "b", "c"])
        self.assertEqual(results.finish([]), 0)
        self.assertTrue(self.kept()["complete"])

    def test_a_program_that_fails_costs_its_own_row_and_the_exit_code(self):
        results = engine.Results("x")
        results.take("a", lambda: {"case": "a"})
        self.assertEqual(results.take("b", lambda: engine.figures_of([sys.executable, "-c", "import sys; sys.exit('no memory')"])), [])
        results.take("c", lambda: engine.figures_of([sys.executable, "-c", "print('no figures')"]))
        results.take("d", lambda: engine.figures_of([self.folder / "absent"]))
        results.take("e", lambda: engine.figures_of([sys.executable, "-c", "print('a line'); print('{\"case\": \"e\"}')"]))
        self.assertEqual(results.finish([]), 1)
        self.assertEqual([row["case"] for row in self.kept()["rows"]], ["a", "e"])
        self.assertEqual([failure["what"] for failure in self.kept()["failed"]], ["b", "c", "d"])
        self.assertIn("no memory", self.kept()["failed"][0]["why"])

    def test_a_bar_that_is_missed_is_the_exit_code(self):
        self.assertEqual(engine.Results("x").finish(["a: 0.9 x"]), 1)


class AboutTest(Harness):
    def test_a_machine_without_git(self):
        engine.revision.cache_clear()
        self.addCleanup(engine.revision.cache_clear)
        with mock.patch.dict(os.environ, {"PATH": str(self.folder)}), mock.patch.object(engine, "ROOT", self.folder):
            self.assertEqual(engine.revision(), "unknown")

    def test_tells_the_machine(self):
        about = engine.about()
        self.assertLessEqual({"date", "revision", "cpu", "build", "libraries"}, set(about))
        self.assertIn("model_number", about["cpu"])


class TrainingTest(Harness):
    def run_with(self, speeds: dict, rounds: int) -> dict:
        """The row of a case whose programs have these speeds, one a round."""
        left = {program: list(values) for program, values in speeds.items()}

        def figures(program):
            value = left[program].pop(0)
            return {"tokens_per_s": value, "peak_rss_mib": value, "peak_share": value / 100, "peak_gflops_per_s": 80, "model_gflops_per_s": value, "fma_peak_gflops_per_s": 120, "gemm": "g", "program": "p",
                    "phase_s": {"forward": value}}

        with mock.patch.object(training, "ours", lambda *_: figures("redllm")), \
                mock.patch.object(training, "peer", lambda *a: figures("compiled" if a[-1] else "eager")):
            return training.measure("red_tiny", "fp32", rounds, 5)

    def test_figures_are_medians_over_rounds_and_held_against_the_better_peer(self):
        row = self.run_with({"redllm": [40, 10, 30], "eager": [20, 25, 1], "compiled": [5, 7, 90]}, 3)
        self.assertEqual((row["tokens_per_s"], row["eager_tokens_per_s"], row["compiled_tokens_per_s"]), (30, 20, 7))
        self.assertEqual(row["ratio"], 1.5)
        self.assertEqual(row["memory_ratio"], 30 / 7)
        self.assertEqual(row["phase_s"], {"forward": 30})
        self.assertEqual((row["fma_share"], row["peak_share"]), (30 / 120, 0.3))
        self.assertEqual(self.run_with({"redllm": [40, 10], "eager": [20, 24], "compiled": [5, 7]}, 2)["tokens_per_s"], 25)

    def test_bars(self):
        def row(case, dtype, ratio, memory):
            return {"case": case, "dtype": dtype, "ratio": ratio, "memory_ratio": memory}
        self.assertEqual(training.below_bars([row("red_tiny", "fp32", 1.1, 0.9), row("red_tiny", "bf16", 1.3, 0.9)]), [])
        self.assertEqual(len(training.below_bars([row("red_tiny", "fp32", 1.09, 0.91), row("red_tiny", "bf16", 1.29, 0.9)])), 3)
        even = [row(case, "fp32", 1.14, 0.5) for case in training.BARS]
        self.assertEqual(training.below_bars(even), ["geometric mean in fp32: 1.14 x"])


class GenerationTest(Harness):
    def test_ours_is_held_against_the_faster_peer(self):
        def run(decode, name):
            return {"decode_tokens_per_s": decode, "prefill_tokens_per_s": 10 * decode, "gemm": "g", "program": "p", "model": name}
        runs = {"redllm": [run(60, "r"), run(90, "r")], "same": [run(20, "s"), run(30, "s")], "nearest": [run(50, "n"), run(50, "n")]}
        figures = generation.figures_of_batch(runs)
        self.assertEqual((figures["ratio"], figures["same_decode_tokens_per_s"], figures["nearest_model"]), (1.5, 25, "p, n"))
        runs["same"] = [run(100, "s")]
        self.assertEqual(generation.figures_of_batch(runs)["ratio"], 0.75)


if __name__ == "__main__":
    unittest.main()

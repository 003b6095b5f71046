#!/usr/bin/env python3
"""launch/cuda_sdk.sh with a stand-in for python3: what is installed stays until all of the new is there."""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from stand_ins import ROOT

PYTHON = """#!/bin/bash
case "$*" in
  *'pip install'*)
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2" && echo new >"$2/library"
    exit "${FAKE_PIP:-0}" ;;
esac
"""


class Sdk(unittest.TestCase):
    def test_a_download_that_breaks_off_costs_nothing(self):
        folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        (folder / "launch").mkdir()
        shutil.copy(ROOT / "launch" / "cuda_sdk.sh", folder / "launch")
        (folder / "build" / "cuda").mkdir(parents=True)
        (folder / "build" / "cuda" / "library").write_text("old\n")
        (folder / "tools").mkdir()
        (folder / "tools" / "python3").write_text(PYTHON)
        (folder / "tools" / "python3").chmod(0o755)

        def install(**more: str) -> int:
            environment = {**os.environ, "PATH": f"{folder}/tools{os.pathsep}{os.environ['PATH']}", **more}
            return subprocess.run([str(folder / "launch" / "cuda_sdk.sh"), "--without-nvcc"], env=environment, capture_output=True,
                                  check=False).returncode

        self.assertEqual(install(FAKE_PIP="1"), 1)
        self.assertEqual((folder / "build" / "cuda" / "library").read_text(), "old\n")
        self.assertEqual(install(), 0)
        self.assertEqual((folder / "build" / "cuda" / "library").read_text(), "new\n")
        self.assertEqual(sorted(path.name for path in (folder / "build").iterdir()), ["cuda"])
        (folder / "build" / "cuda" / "library").write_text("kept\n")
        self.assertEqual(install(), 0)  # it is there
        self.assertEqual((folder / "build" / "cuda" / "library").read_text(), "kept\n")


if __name__ == "__main__":
    unittest.main()

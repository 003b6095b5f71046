"""A Slurm cluster of two nodes on this machine (launch/local_slurm.sh), as a test uses it, and a test of a user's without privileges."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from campaign import ROOT, run

CLUSTER = ROOT / "launch" / "local_slurm.sh"


class Failed(Exception):
    pass


class Cluster:
    """Two nodes of this machine, by the name of their folder."""

    def __init__(self, folder: pathlib.Path, port: int):
        self.options = ["--folder", folder, "--port", port]
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.start()

    def start(self) -> None:
        """What of it does not run."""
        done = run([CLUSTER, "start", *self.options], self.folder.parent)
        if done.returncode != 0:
            raise Failed(f"the cluster does not start: {done.stderr}")

    def stop(self) -> None:
        run([CLUSTER, "stop", *self.options], self.folder.parent)

    def call(self, *words) -> str:
        done = run(words, ROOT, env=self.environment)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, words))}: {done.stderr}")
        return done.stdout.strip()

    def daemon(self, node: str) -> int:
        return int((self.folder / f"slurmd-{node}.pid").read_text(encoding="utf-8"))


def unprivileged(port: int) -> str:
    """A cluster of a user who may nothing: what it prints of itself, and a job there."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="redllm-slurm-user-"))
    other = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    if other:
        shutil.chown(folder, "nobody", "nogroup")
    script = (f'set -e; cluster() {{ "{CLUSTER}" "$@" --folder "{folder}/c" --port {port}; }}\n'
              'if cluster status; then exit 1; fi\n'
              'cluster start; trap "cluster stop" EXIT\n'
              'eval "$(cluster env)"; cluster status\n'
              f'sbatch --wait --output={folder}/out --wrap "id -un"; cat {folder}/out\n'
              'cluster stop; if cluster status; then exit 1; fi\n')
    try:
        done = run([*other, "env", f"HOME={folder}", "bash", "-c", script], folder)
        user = run([*other, "id", "-un"], folder).stdout
        wanted = done.returncode == 0 and user in done.stdout and done.stderr.count("is not up: no munged") == 2
        listed = all(re.search(rf"^{node} +1 +local\* +idle", done.stdout, re.MULTILINE) for node in ("n1", "n2"))
        return "ok" if wanted and listed else f"FAILED: {done.returncode}\n{done.stdout}{done.stderr}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)

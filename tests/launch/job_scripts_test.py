#!/usr/bin/env python3
"""The job scripts of slurm/ and launch/supervise.sh, with stand-ins for Slurm, Open MPI and the program: which launcher a job takes,
what becomes of one whose machines are not fit or that is asked to stop, and whence it may be submitted. On a real Slurm:
tests/faults/slurm_test.py.

    tests/launch/job_scripts_test.py [TEST...]
"""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUPERVISE = ROOT / "launch" / "supervise.sh"
MODELS = [f"{kind}_{size}" for kind in ("red", "dec") for size in ("150m", "1b", "2b", "4b", "8b")]
OPEN_MPI_4, OPEN_MPI_5 = "mpirun (Open MPI) 4.1.4", "mpirun (Open MPI) 5.0.11"
TRAINS = "trap 'exit 75' USR1; while :; do sleep 0.05; done"

STAND_INS = {
    # A launcher runs the program once, whatever it is told.
    "mpirun": 'if [ "$1" = --version ]; then echo "$MPI_VERSION"; exit; fi\n'
              'while [ "${1##*/}" != redllm ]; do shift; done\nexec "$@"\n',
    "srun": 'printf "%b" "${MPI_LIST:-none}" >&2\n',
    "ompi_info": 'echo "${MPI_COMPONENTS:-}"\n',
    "sbatch": 'echo "$*" >>"$TOLD/submitted"; echo 4242\n',
    "scontrol": 'case $1 in show) echo "   JobState=${JOB_STATE:-RUNNING} Reason=None"; echo "   RunTime=${RUN_TIME:-00:10:00} TimeLimit=1-00:00:00"\n'
                '              echo "   Command=$COMMAND";; requeue) echo "$2" >>"$TOLD/requeued";; esac\n',
    "redllm": 'excluded=$(sed -n "s/.* --exclude-file \\([^ ]*\\) .*/\\1/p" <<<"$*")\n'
              'case $1 in plan) echo planned;; preflight) eval "$PREFLIGHT";; train) eval "$TRAIN";; esac\n',
}


class Scripts(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="redllm-job-scripts-")
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        for name, text in STAND_INS.items():
            self.stand_in(name, text)
        self.write("data.ini", "")
        self.run_dir = self.folder / "run"

    def write(self, name: str, text: str) -> pathlib.Path:
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    def stand_in(self, name: str, text: str) -> None:
        (self.folder / "bin").mkdir(exist_ok=True)
        self.write(f"bin/{name}", f"#!/bin/bash\n{text}").chmod(0o755)

    def machine(self, cores: int, threads: int, nodes: int, on_first: int = 0) -> None:
        """One that the scripts take for theirs, with so many hardware threads a core and NUMA nodes; the first of two with `on_first` cores."""
        for i in range(nodes):
            (self.folder / f"sys/devices/system/node/node{i}").mkdir(parents=True, exist_ok=True)
        self.write("cores", "".join(f"{int(i >= on_first) if on_first else i % nodes},{i},0\n" for i in range(cores)))
        self.stand_in("lscpu", f"if [ $1 = -p=core,socket ]; then cut -d , -f 2- {self.folder}/cores; else cat {self.folder}/cores; fi")
        for tool in ("nproc", "getconf"):
            self.stand_in(tool, f"echo {cores * threads}")

    def told(self, name: str) -> str:
        """What a stand-in wrote down."""
        return (self.folder / name).read_text(encoding="utf-8") if (self.folder / name).exists() else ""

    def environment(self, **more) -> dict:
        kept = {name: value for name, value in os.environ.items() if not re.match("SLURM_|SITE_|OMPI_|PRTE_|PMIX_|NCCL_", name)}
        return {**kept, "PATH": f"{self.folder}/bin:{os.environ['PATH']}", "REDLLM_BUILD": f"{self.folder}/bin", "REDLLM_BACKEND": "cpu",
                "DATA_CONFIG": f"{self.folder}/data.ini", "RUN_DIR": str(self.run_dir), "TOLD": str(self.folder), "MPI_VERSION": OPEN_MPI_4, "RED_SYSFS": f"{self.folder}/sys",
                "PREFLIGHT": "exit 0", "TRAIN": "exit 0", **more}

    def bash(self, *words, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
        return subprocess.run(["bash", *map(str, words)], cwd=cwd, env=self.environment(**environment), timeout=60, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)

    def job(self, script: str = "slurm/red_150m.sh", **environment) -> subprocess.CompletedProcess:
        """As sbatch would run it, on one node."""
        return self.bash(script, SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES="1", SLURM_NTASKS="8", **environment)

    def dry_run(self, script: str = "slurm/red_150m.sh", **environment) -> str:
        done = self.bash(script, "--dry-run", **environment)
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout


class WhereItRuns(Scripts):
    def test_every_script_has_as_many_tasks_as_ranks(self):
        for model in MODELS:
            script = (ROOT / f"slurm/{model}.sh").read_text(encoding="utf-8")
            tasks = int(re.search("--nodes=(.*)", script)[1]) * int(re.search("--ntasks-per-node=(.*)", script)[1])
            told = self.dry_run(f"slurm/{model}.sh")
            self.assertIn(f", {tasks} ranks; launcher mpirun;", told)
            self.assertIn(f" --config configs/models/{model}.ini --config configs/pretrain.ini ", told)
            self.assertIn("planned\n", told)
            self.assertNotIn("initialize_from", told)

    def test_tuning_goes_on_from_what_was_pretrained(self):
        for model in MODELS:
            pretrains, tunes = ((ROOT / f"slurm/{name}.sh").read_text(encoding="utf-8") for name in (model, f"tune_{model}"))
            begins = "#SBATCH --nodes="
            self.assertEqual(tunes[tunes.index(begins):].replace("recipe=instruction_tuning\n", ""), pretrains[pretrains.index(begins):])
            told = self.dry_run(f"slurm/tune_{model}.sh", RUN_DIR="", TUNING_DATA_CONFIG=f"{self.folder}/data.ini", DATA_CONFIG="none.ini")
            for words in (f" --config configs/models/{model}.ini --config configs/instruction_tuning.ini --config {self.folder}/data.ini ",
                          f" --checkpoint.initialize_from=runs/{model} ", f" --train.run_dir=runs/{model}_tuned"):
                self.assertIn(words, told)

    def test_a_job_finds_its_folder_from_wherever_it_was_submitted(self):
        spooled = self.write("slurm_script", (ROOT / "slurm/red_150m.sh").read_text(encoding="utf-8"))
        for submitted, command in ((self.folder, f"{ROOT}/slurm/red_150m.sh"), (ROOT / "slurm", f"{ROOT}/slurm/red_150m.sh --dry-run")):
            done = self.bash(spooled, "--dry-run", cwd=submitted, SLURM_JOB_ID="7", SLURM_SUBMIT_DIR=str(submitted), COMMAND=command)
            self.assertIn("job: --job-name=red_150m ", done.stdout)
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_a_sites_files_need_not_bear_strictness(self):
        setup = self.write("setup.sh", 'module() { false; [ -n "$NOT_SET" ]; export LOADED_MODULES="$*"; }\nfalse\n')
        self.stand_in("redllm", 'echo "loaded $LOADED_MODULES"')
        self.assertIn("loaded load cuda mpi\n", self.dry_run(SITE_SETUP=str(setup), SITE_MODULES="cuda mpi"))
        failing = self.write("failing.sh", "module() { return 3; }\n")
        done = self.bash("slurm/red_150m.sh", "--dry-run", SITE_SETUP=str(failing), SITE_MODULES="cuda")
        self.assertEqual(done.returncode, 2)
        self.assertIn("`module load cuda` ended with 3", done.stdout)

    def test_a_gpu_without_its_program_ends_a_job(self):
        self.stand_in("nvidia-smi", 'echo "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0)"')
        done = self.job(REDLLM_BACKEND="")
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("job 7 has a GPU, but", done.stdout)
        self.assertIn("redllm-cuda is not built", done.stdout)
        self.assertIn("REDLLM_BACKEND=cpu", done.stdout)
        self.assertEqual(done.stdout.count("launch/program.sh: "), 1, done.stdout)
        self.assertNotIn("start 0 on", done.stdout)
        for environment in ({"REDLLM_BACKEND": "cpu", "SLURM_JOB_ID": "7"}, {"REDLLM_BACKEND": ""}):  # a person reads the line
            chosen = self.bash("launch/program.sh", **environment)
            self.assertEqual(chosen.returncode, 0, chosen.stdout)
            self.assertTrue(chosen.stdout.endswith(f"{self.folder}/bin/redllm\n"), chosen.stdout)
        self.stand_in("nvidia-smi", 'echo "No devices were found"; exit 6')
        self.assertEqual(self.job(REDLLM_BACKEND="").returncode, 0)

    def test_long_messages_move_as_with_the_other_launchers(self):
        for launcher in ("mpirun", "srun"):
            told = self.dry_run(SITE_LAUNCHER=launcher)
            self.assertIn(" OMPI_MCA_pml_ob1_send_pipeline_depth=16\n", told)
        self.assertIn("_pipeline_depth=4\n", self.dry_run(OMPI_MCA_pml_ob1_send_pipeline_depth="4"))

    def test_networks_are_named_as_each_open_mpi_wants(self):
        for version, name in ((OPEN_MPI_4, "OMPI_MCA_oob_tcp_if_include"), (OPEN_MPI_5, "PRTE_MCA_prte_if_include")):
            told = self.dry_run(SITE_MPI_INTERFACES="ib0", MPI_VERSION=version)
            self.assertIn(f" {name}=ib0\n", told)
            self.assertIn(" OMPI_MCA_btl_tcp_if_include=ib0\n", told)
            self.assertEqual(told.count("_if_include=ib0"), 2, told)
        self.assertIn(" OMPI_MCA_btl_tcp_if_include=ib0\n", self.dry_run(SITE_MPI_INTERFACES="ib0", SITE_LAUNCHER="srun", MPI_VERSION=""))

    def test_srun_is_chosen_where_slurm_and_open_mpi_have_pmix(self):
        slurm = r"MPI plugin types are...\n\tcray_shasta\n\tpmi2\n\tpmix\n\tnone\nspecific pmix plugin versions available: pmix_v4\n"
        other = "                MCA pmix: flux (MCA v2.1.0, API v2.0.0, Component v4.1.4)"
        for mpi_list, version, components, launcher in (
                (slurm, OPEN_MPI_4, f"{other}\n{other.replace('flux', 'pmix3x')}", "srun"),
                (slurm, OPEN_MPI_4, f"{other.replace('flux', 'ext3x')}\n{other}", "srun"),
                (slurm, OPEN_MPI_4, f"{other}\n{other.replace('flux', 's2')}", "mpirun"), (slurm, OPEN_MPI_5, "", "srun"),
                (r"MPI plugin types are...\n\tpmi2\n\tnone\n", OPEN_MPI_5, "", "mpirun"),
                (r"\tpmix_v4\n", OPEN_MPI_5, "", "mpirun")):
            told = self.dry_run(MPI_LIST=mpi_list, MPI_VERSION=version, MPI_COMPONENTS=components)
            self.assertIn(f"; launcher {launcher};", told, (mpi_list, version, components))

    def test_ranks_on_the_cpu_get_cores_of_their_own(self):
        self.machine(cores=32, threads=2, nodes=2)
        for environment, words in (
                ({}, "binding: each rank to 4 cores\n"), ({}, " --map-by ppr:4:numa:PE=4 --bind-to core --oversubscribe "),
                ({"OPTIONS": "--train.threads=8"}, " --map-by ppr:4:numa:PE=4 "),  # on two hardware threads a core
                ({"OPTIONS": "--train.threads=9"}, "ranks are not bound: 8 rank(s) x 9 threads (train.threads), 64 CPUs"),
                ({"SLURM_NTASKS_PER_NODE": "5"}, " --map-by ppr:5:node:PE=6 "), ({"SLURM_NTASKS_PER_NODE": "40"}, "not bound: 32 cores for 40 rank(s)"),
                ({"SLURM_CPUS_PER_TASK": "2"}, " --map-by ppr:4:numa:PE=2 "), ({"SLURM_CPUS_PER_TASK": "8"}, " --map-by ppr:4:numa:PE=4 "),
                ({"SLURM_JOB_CPUS_PER_NODE": "16(x2),12"}, "ranks are not bound: the job has 12 of 64 CPUs of a node"),
                ({"SLURM_JOB_CPUS_PER_NODE": "64(x2),48"}, "ranks are not bound: the job has 48 of 64 CPUs of a node"),
                ({"SLURM_JOB_CPUS_PER_NODE": "32(x3)"}, " --map-by ppr:4:numa:PE=4 "),  # where a core is what Slurm calls a CPU
                ({"SLURM_JOB_CPUS_PER_NODE": "48", "SLURM_CPUS_PER_TASK": "2"}, " --map-by ppr:8:node:PE=2 "),
                ({"SITE_LAUNCHER": "srun", "SLURM_NTASKS_PER_NODE": "3"}, " --cpus-per-task=20 --cpu-bind=cores "),  # whole cores
                ({"SLURM_JOB_CPUS_PER_NODE": "64(x2),96"}, " --map-by ppr:4:numa:PE=4 "),
                ({"SITE_LAUNCHER": "srun"}, " --cpus-per-task=8 --cpu-bind=cores "),
                ({"SITE_LAUNCHER": "srun", "SLURM_JOB_CPUS_PER_NODE": "16(x2),12"}, "to the cores of 1 CPUs, by Slurm's"),
                ({"SITE_LAUNCHER": "srun", "SLURM_CPUS_PER_TASK": "3"}, " --cpus-per-task=3 --cpu-bind=cores "),
                ({"SITE_LAUNCHER": "srun", "OPTIONS": "--train.threads 9"}, " --cpu-bind=none ")):
            self.assertIn(words, self.dry_run(**environment), environment)
        self.stand_in("redllm-cuda", "echo planned")
        for launcher, words in (("mpirun", " --bind-to none "), ("srun", " --cpu-bind=none ")):
            told = self.dry_run(REDLLM_BACKEND="cuda", SITE_LAUNCHER=launcher)
            self.assertIn(words, told)
            self.assertIn("ranks are not bound: they bind themselves to cores near their GPUs", told)

    def test_ranks_of_this_machine_are_bound_as_a_dry_run_says(self):
        self.machine(cores=32, threads=2, nodes=2)
        for words, told in ((("-n", 4, "true"), " --map-by ppr:2:numa:PE=8 --bind-to core "), (("-n", 3, "true"), " --map-by slot:PE=10 --bind-to core "),
                            (("-n", 33, "true"), "binding: ranks are not bound: 32 cores for 33 rank(s)\n"),
                            (("-n", 2, "true", "--train.threads=33"), "binding: ranks are not bound: 2 rank(s) x 33 threads"),
                            (("-n", 2, "--cores-per-rank", 1, "true"), "binding: each rank is bound to 1 of 32 cores\n"),
                            (("-n", 2, "redllm-cuda"), "binding: ranks are not bound: ranks bind themselves")):
            self.stand_in("redllm-cuda", "")
            done = self.bash(ROOT / "launch" / "local.sh", *words[:2], "--dry-run", *words[2:])
            self.assertIn(told, done.stdout, words)
        self.stand_in("nproc", "echo 3")
        self.assertIn("not bound: this shell may run on 3 of the machine's 64 CPUs", self.bash(ROOT / "launch/local.sh", "-n", 1, "--dry-run", "true").stdout)
        for words in (("-n",), ("-n", 0, "true"), ("-n", 2), ("-n", 2, "--no-such", "true"), ("-n", 2, "--cores-per-rank", "x", "true"),
                      ("-n", 2, "--cores-per-rank", 17, "true"), ("-n", 2, "no-such-program")):
            self.assertEqual(self.bash(ROOT / "launch/local.sh", *words).returncode, 2, words)


class MachinesThatAreNotFit(Scripts):
    def unfit(self, preflight: str, **environment) -> str:
        """What sbatch was told by a job that ended with 9."""
        done = self.job(PREFLIGHT=preflight, SITE_PREFLIGHT="exclude", **environment)
        self.assertEqual(done.returncode, 9, done.stdout)
        submitted = self.told("submitted")
        (self.folder / "submitted").unlink(missing_ok=True)
        self.assertNotIn("start 0 on", done.stdout)
        return submitted

    def test_a_job_is_submitted_again_once_for_each_node_that_is_found(self):
        names_n2 = "grep -s n2 $excluded || echo n2 >>$excluded; exit 9"
        self.assertRegex(self.unfit(names_n2), rf"--exclude=n2 --nodes=1 {ROOT}/slurm/red_150m.sh\n")
        self.assertEqual(self.unfit(names_n2), "")
        self.assertEqual(self.unfit("exit 9"), "")  # a full disk that all share, say
        self.assertIn("--exclude=n1,n2 ", self.unfit("echo n1 >>$excluded; exit 9"))
        self.assertEqual(self.unfit("echo n3 >>$excluded; exit 9", SITE_MOST_EXCLUDED="2"), "")

    def test_what_is_known_to_be_unfit_is_left_out_when_a_person_submits(self):
        self.run_dir.mkdir()
        (self.run_dir / "excluded_nodes").write_text("n2\nn1\n", encoding="utf-8")
        self.assertEqual(self.bash("slurm/red_150m.sh", SITE_PREFLIGHT="exclude").returncode, 0)
        self.assertEqual(self.told("submitted"), f"--exclude=n1,n2 {ROOT}/slurm/red_150m.sh\n")

    def test_a_job_that_cannot_be_submitted_again_says_so(self):
        self.stand_in("sbatch", "echo 'sbatch: error: invalid partition' >&2; exit 1")
        done = self.job(PREFLIGHT="echo n2 >>$excluded; exit 9", SITE_PREFLIGHT="exclude")
        self.assertEqual(done.returncode, 9)
        self.assertIn("cannot be submitted again without n2: sbatch: error: invalid partition", done.stdout)

    def test_a_preflight_that_fails_by_chance_is_done_once_more(self):
        self.stand_in("sleep", "")
        for preflight, code, times in (("[ $times = 2 ] || exit 6", 0, 2), ("exit 6", 6, 2), ("exit 8", 8, 2), ("kill -KILL $$", 137, 2), ("exit 2", 2, 1), ("exit 9", 9, 1)):
            (self.folder / "times").unlink(missing_ok=True)
            done = self.job(PREFLIGHT=f"echo >>$TOLD/times; times=$(wc -l <$TOLD/times); {preflight}")
            self.assertEqual((done.returncode, self.told("times").count("\n")), (code, times), done.stdout)
            self.assertEqual("start 0 on" in done.stdout, code == 0)

    def test_numa_nodes_with_unequal_cores_are_not_mapped(self):
        self.machine(cores=32, threads=1, nodes=2, on_first=20)
        self.assertIn(" --map-by ppr:8:node:PE=4 --bind-to core ", self.dry_run(SITE_LAUNCHER="mpirun"))

    def test_a_preflight_that_never_ends_does(self):
        done = self.job(PREFLIGHT="sleep 60", SITE_PREFLIGHT_SECONDS="1")
        self.assertEqual(done.returncode, 8, done.stdout)
        self.assertIn("preflight did not end within 1 s (SITE_PREFLIGHT_SECONDS)", done.stdout)
        self.assertNotIn("once more", done.stdout)

    def test_machines_are_tried_again_when_training_gives_up(self):
        dies = "rm -f $TOLD/fit; exit 6"
        for training, found, code, submitted in ((dies, "echo n2 >>$excluded; exit 9", 9, "--exclude=n2 "), (dies, "exit 0", 6, ""),
                                                 ("rm -f $TOLD/fit; exit 5", "exit 9", 5, "")):  # it would again, on any machine
            self.write("fit", "")
            done = self.job(PREFLIGHT=f"[ -e $TOLD/fit ] || {{ {found}; }}", TRAIN=training, SITE_PREFLIGHT="exclude", MAX_RESTARTS="0")
            self.assertEqual(done.returncode, code, done.stdout)
            self.assertIn(submitted, self.told("submitted"))
            self.assertEqual(bool(self.told("submitted")), bool(submitted), done.stdout)
            (self.folder / "submitted").unlink(missing_ok=True)

    def test_stop_and_report_do_as_they_say(self):
        self.assertEqual(self.job(PREFLIGHT="echo n2 >$excluded; exit 9").returncode, 9)
        self.assertEqual(self.job(PREFLIGHT="exit 9", SITE_PREFLIGHT="report").returncode, 0)
        self.assertEqual(self.told("submitted"), "")


class AskedToStop(Scripts):
    def expect_requeued(self, done: subprocess.CompletedProcess) -> None:
        self.assertEqual(done.returncode, 75, done.stdout)
        self.assertEqual(self.told("requeued"), "7\n", done.stdout)
        (self.folder / "requeued").unlink()

    def test_in_preflight(self):
        for preflight in ("exit 75", "kill -USR1 $$", "kill -USR1 $(cat $RUN_DIR/job); kill -TERM $$", "kill -USR1 $(cat $RUN_DIR/job)"):
            self.run_dir.mkdir(exist_ok=True)
            done = self.bash("-c", "echo $$ >$RUN_DIR/job; exec bash slurm/red_150m.sh", SLURM_JOB_ID="7", PREFLIGHT=preflight)
            self.expect_requeued(done)
            self.assertNotIn("start 0 on", done.stdout)
        self.stand_in("sleep", "")
        done = self.job(PREFLIGHT="kill -TERM $$")  # nobody asked the job
        self.assertEqual(done.returncode, 143, done.stdout)

    def test_before_the_ranks_listen(self):
        self.expect_requeued(self.job(TRAIN="kill -USR1 $$", MAX_RESTARTS="3"))

    def test_between_preflight_and_training(self):
        self.run_dir.mkdir()
        self.stand_in("date", 'if [ -e $RUN_DIR/strike ]; then rm $RUN_DIR/strike; kill -USR1 $(cat $RUN_DIR/job); fi')
        self.expect_requeued(self.bash("-c", "echo $$ >$RUN_DIR/job; exec bash slurm/red_150m.sh", SLURM_JOB_ID="7",
                                       PREFLIGHT="touch $RUN_DIR/strike", TRAIN=TRAINS))

    def test_in_training(self):
        self.run_dir.mkdir()
        self.expect_requeued(self.bash("-c", "echo $$ >$RUN_DIR/job; exec bash slurm/red_150m.sh", SLURM_JOB_ID="7",
                                       TRAIN=f"(sleep 0.2; kill -USR1 $(cat $RUN_DIR/job)) & {TRAINS}"))
        for dies, requeued in (("kill -KILL $$", True), ("exit 7", True), ("exit 8", True), ("exit 3", False), ("exit 5", False)):
            done = self.bash("-c", "echo $$ >$RUN_DIR/job; exec bash slurm/red_150m.sh", SLURM_JOB_ID="7",
                             TRAIN=f"trap : USR1; kill -USR1 $(cat $RUN_DIR/job); sleep 0.2; {dies}")  # instead of saving
            if requeued:
                self.expect_requeued(done)
            else:
                self.assertEqual((f"exit {done.returncode}", self.told("requeued")), (dies, ""), done.stdout)
        self.assertEqual(self.job(TRAIN="kill -KILL $$", MAX_RESTARTS="0").returncode, 137)

    def test_a_cancelled_job_stays_away(self):
        for state, run_time, requeued in (("COMPLETING", "23:59:59", False), ("CANCELLED", "00:00:10", False),
                                          ("COMPLETING", "1-00:00:03", True), ("RUNNING", "00:00:08", True)):
            done = self.job(TRAIN="exit 75", JOB_STATE=state, RUN_TIME=run_time)
            if requeued:
                self.expect_requeued(done)
            else:
                self.assertEqual((done.returncode, self.told("requeued")), (75, ""), done.stdout)
                self.assertIn("cancelled: not put back", done.stdout)


class Supervisor(Scripts):
    def supervise(self, command: str, *options) -> subprocess.CompletedProcess:
        """The file `pid` has its process."""
        return self.bash("-c", 'echo $$ >pid; exec "$@"', "bash", SUPERVISE, "--max-restarts", "2", "--backoff", "0", *options, "--",
                         "bash", "-c", f"echo once; {command}", cwd=self.folder)

    def test_a_death_by_a_request_to_stop_is_one(self):
        for command, code in (("kill -USR1 $$", 75), ("kill -TERM $(<pid); sleep 0.2; kill -TERM $$", 75), ("kill -KILL $$", 137)):
            done = self.supervise(command)
            self.assertEqual(done.returncode, code, done.stdout)
            self.assertEqual(done.stdout.count("once\n"), 3 if code == 137 else 1, done.stdout)

    def test_a_signal_before_there_is_a_child_reaches_it(self):
        self.stand_in("cat", "read -r pid <pid; kill -USR1 $pid")  # called for the newest checkpoint, before a start
        done = self.supervise(TRAINS, "--run-dir", "run")
        self.assertEqual(done.returncode, 75, done.stdout)

    def test_a_request_is_repeated_until_it_is_heard(self):
        done = self.supervise("n=0; trap 'n=$((n + 1)); [ $n -lt 3 ] || exit 75' USR1; kill -USR1 $(<pid); while :; do sleep 0.05; done")
        self.assertEqual(done.returncode, 75, done.stdout)

    def test_a_second_signal_kills(self):
        # Within three seconds it is the same request.
        done = self.supervise("(kill -TERM $(<pid); sleep 4; kill -TERM $(<pid)) & trap '' USR1; while :; do sleep 0.1; done")
        self.assertEqual(done.returncode, 143, done.stdout)
        self.assertIn("again: killing the run", done.stdout)


if __name__ == "__main__":
    unittest.main()

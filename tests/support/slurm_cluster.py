"""A Slurm of two nodes on this machine, with its own key, folders and ports."""

import contextlib
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from command import DEADLINE, run, until
from lying_around import end, free_ports

NODES = ("one", "two")
"""Names of the nodes. Each has one CPU."""
_DAEMONS = ("munged", "slurmctld", "slurmd")
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
MpiDefault=none
FirstJobId={first_job}
SchedulerParameters=bf_interval=1,sched_interval=2
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def unavailable() -> str | None:
    """Why no Slurm can be started here; None if one can."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "needs root on Linux"
    missing = [name for name in _DAEMONS if shutil.which(name) is None]
    return f"needs {', '.join(missing)}" if missing else None


class Slurm:
    """A running Slurm. Its commands, and those of the environment, are found by name."""

    def __init__(self, folder: Path, jobs: Path) -> None:
        self.jobs = jobs
        """Folder from which jobs are submitted."""
        bin_folder = Path(sys.executable).parent
        self.environment = {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "TMPDIR": str(folder),  # of Ray, whose sockets need a short path
        }

    def call(self, *command: str | Path) -> str:
        """The output of a command of Slurm that succeeds."""
        done = run(*command, cwd=self.jobs, **self.environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, *arguments: str | Path) -> str:
        """Submit a job and return its id."""
        return self.call("sbatch", "--parsable", *arguments).strip()

    def state(self, job: str) -> dict[str, str]:
        """What Slurm says about a job."""
        found = re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "job", "--oneliner", job))
        return dict(found)

    def wait(self, job: str, *states: str) -> None:
        """Wait until a job is in one of these states."""
        until(lambda: self.state(job)["JobState"] in states, seconds=2 * DEADLINE, every=0.5)

    def wait_restart(self, job: str) -> None:
        """Wait until a job has been requeued for the first time."""
        until(lambda: self.state(job)["Restarts"] == "1", every=0.5)

    def processes(self, job: str, name: str) -> list[psutil.Process]:
        """The job's processes with ``name`` in their command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # it has ended, or is not ours
                ours = process.environ().get("SLURM_CONF") == self.environment["SLURM_CONF"]
                if ours and process.environ().get("SLURM_JOB_ID") == job:
                    found += [process] if name in " ".join(process.cmdline()) else []
        return found


@contextlib.contextmanager
def slurm_cluster(jobs: Path) -> Iterator[Slurm]:
    """Start a Slurm; jobs are submitted from the folder ``jobs``."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)  # a last log may be written
        _write_files(folder)
        slurm = Slurm(folder, jobs)
        for command in _commands(folder):
            log = stack.enter_context((folder / f"{command[0]}.out").open("ab"))
            stack.callback(end, psutil.Popen(command, stdout=log, stderr=log))
            if command[0] == "munged":
                until((folder / "munge.socket").exists)
        stack.callback(_end_jobs, slurm)
        until(
            lambda: slurm.call("sinfo", "--noheader", "--format=%D %T").strip() == "2 idle",
            every=0.2,
        )
        yield slurm


def _write_files(folder: Path) -> None:
    (folder / "state").mkdir()
    for node in NODES:
        (folder / node).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    # Some plugin has to be named, though nothing here uses it; later versions have "disabled".
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    ports = free_ports(3)
    values = {"host": socket.gethostname(), "folder": folder, "ports": ports, "nodes": NODES}
    (folder / "slurm.conf").write_text(_CONF.format(**values, first_job=os.getpid() * 10))


def _commands(folder: Path) -> Iterator[list[str]]:
    files = {"key": "munge.key", "seed": "munge.seed", "log": "munge.log", "pid": "munge.pid"}
    options = [f"--{name}-file={folder / file}" for name, file in files.items()]
    # Forced, since others cannot enter the folder of the socket.
    yield ["munged", "--foreground", "--force", f"--socket={folder / 'munge.socket'}", *options]
    conf = ["-f", str(folder / "slurm.conf")]
    yield ["slurmctld", "-D", *conf]
    yield from (["slurmd", "-D", "-N", node, *conf] for node in NODES)


def _end_jobs(slurm: Slurm) -> None:
    slurm.call("scancel", "--user=root")
    until(lambda: not slurm.call("squeue", "--noheader"), every=0.2)

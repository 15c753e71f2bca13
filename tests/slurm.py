"""A temporary Slurm cluster on this machine: real daemons on free ports, with a slurmd for each node."""

import getpass
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from pipeline.demo import workspace_environment
from tests.services import find_program, free_port, running

NODES = ("127.0.0.1", "127.0.0.2")  # names that resolve to this machine
CPUS = 2  # of each node, however many the machine has
NODE = "SLURMD_NODENAME"  # Slurm sets it for tasks; set for the daemon, it marks all processes of a node
UP = {"idle", "mixed", "allocated"}
BAD_ENDS = {"CANCELLED", "FAILED", "NODE_FAIL", "TIMEOUT"}
PACKAGES = "slurm-wlm munge"

CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmdTimeout=10
ReturnToService=2
KillWait=10
PartitionName=main Nodes=ALL Default=YES
"""


class Cluster:
    """A cluster, with Slurm's commands as a user has them, and ways to make its nodes fail."""

    def __init__(self, folder: Path, daemons: ExitStack) -> None:
        """Start the daemons in an empty folder and wait until they accept jobs. Raises UserError without Slurm."""
        self._folder, self._daemons = folder, daemons
        self._environment = workspace_environment() | {"SLURM_CONF": f"{folder}/slurm.conf"}
        munged, slurmctld, self._slurmd = (_program(name) for name in ("munged", "slurmctld", "slurmd"))
        for name in ("state", *NODES):
            (folder / name).mkdir()
        settings = CONFIGURATION.format(folder=folder, user=getpass.getuser(), port=free_port())
        nodes = (f"NodeName={node} NodeHostname=localhost Port={free_port()} CPUs={CPUS}\n" for node in NODES)
        (folder / "slurm.conf").write_text(settings + "".join(nodes))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")  # has no requirements on the machine
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        socket = folder / "munge.socket"  # in a folder that others cannot read, which requires --force
        self._start([munged, "--foreground", "--force", *files, f"--socket={socket}"], socket.exists)
        self._start([slurmctld, "-D", "-i"], lambda: self._succeeds("scontrol", "ping"))
        for node in NODES:
            self.boot(node)

    def _start(self, command: Sequence[str], ready: Callable[[], bool], **environment: str) -> None:
        self._daemons.enter_context(running(command, ready, env=self._environment | environment))

    def _succeeds(self, *command: str) -> bool:
        return subprocess.run(command, env=self._environment, capture_output=True, check=False).returncode == 0

    def run(self, *command: str, folder: Path | None = None) -> str:
        """Run a command, which has to succeed, and return its output."""
        result = subprocess.run(command, cwd=folder, env=self._environment, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def submit(self, folder: Path, *arguments: str) -> str:
        """Submit a batch job with one core per task; returns its id."""
        return self.run("sbatch", "--parsable", "--cpus-per-task=1", *arguments, folder=folder).strip()

    def states(self, job: str) -> set[str]:
        """The state of a job, or the states of the tasks of a job array."""
        return set(self.run("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T").split())

    def wait(self, job: str, state: str = "COMPLETED") -> None:
        """Wait until a job and all its tasks are in a state."""
        self.until(lambda: self.states(job) == {state}, job)

    def until(self, condition: Callable[[], bool], job: str) -> None:
        """Wait until a job fulfils a condition; it must neither fail nor end before that."""
        while True:
            states = self.states(job)  # read first, as the end of the job may fulfil the condition
            if condition():
                return
            assert not states & BAD_ENDS, f"job {job}: {states}"
            assert states != {"COMPLETED"}, f"job {job} ended too early"
            time.sleep(0.1)

    def boot(self, node: str) -> None:
        """Start a node's daemon, and wait until it accepts jobs."""
        query = ("sinfo", "--noheader", f"--nodes={node}", "--format=%T")
        self._start([self._slurmd, "-D", "-N", node], lambda: self.run(*query).strip() in UP, **{NODE: node})

    def freeze(self, node: str) -> None:
        """Suspend all processes of a node: it stops responding, as if its network was cut."""
        for process in self._processes(node):
            process.suspend()

    def crash(self, node: str) -> None:
        """Kill all processes of a node, including its jobs."""
        for process in self._processes(node):
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _processes(self, node: str) -> set[psutil.Process]:
        marks = {"SLURM_CONF": self._environment["SLURM_CONF"], NODE: node}.items()
        found = set()
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has ended, or belongs to another user
                if marks <= process.environ().items():
                    parent = process.parent()  # a job's manager hides its environment
                    found |= {process, *([parent] if parent and parent.name() == "slurmstepd" else [])}
        return found


@contextmanager
def slurm() -> Iterator[Cluster]:
    """A cluster of two nodes, whose jobs are killed at the end. Raises UserError if Slurm is not installed."""
    with TemporaryDirectory(prefix="slurm-") as folder, ExitStack() as daemons:
        cluster = Cluster(Path(folder), daemons)
        try:
            yield cluster
        finally:
            for node in NODES:
                cluster.crash(node)


def _program(name: str) -> str:
    return find_program(name, [Path("/usr/sbin")], PACKAGES)

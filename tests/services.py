"""Temporary real services on free ports of this machine, for the tests of shared stores."""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

from pipeline.project.console import UserError

WITHOUT_JOBS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # MLflow's job workers, which this project does not use
START_SECONDS = 180  # MLflow's server first creates its tables, which took 90 on a busy machine
STOP_SECONDS = 10
USER = "nobody"  # PostgreSQL refuses to run as root


@contextmanager
def postgresql() -> Iterator[str]:
    """A fresh PostgreSQL server. Gives the address of its database, with a random password.

    If started by root, it runs as another user, who gets the folder. Raises UserError if PostgreSQL is not installed.
    """
    initdb, server, is_ready = (_postgresql_program(name) for name in ("initdb", "postgres", "pg_isready"))
    port, password = free_port(), secrets.token_hex(8)
    user = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with TemporaryDirectory(prefix="postgresql-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, user["user"], user["group"])
        options = ["--pgdata=data", "--username=tester", "--pwfile=password", "--auth=scram-sha-256", "--encoding=UTF8"]
        subprocess.run(
            [initdb, *options, "--locale=C", "--no-sync"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
            **user,
        )
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off"}
        command = [server, "-D", "data", *(f"--{key}={value}" for key, value in settings.items())]
        ready = [is_ready, "--quiet", "--host=127.0.0.1", f"--port={port}"]
        with running(
            command,
            lambda: subprocess.run(ready, check=False).returncode == 0,
            end=signal.SIGINT,  # SIGTERM would wait for all clients to disconnect
            cwd=folder,
            **user,
        ):
            yield f"postgresql://tester:{password}@127.0.0.1:{port}/postgres"


@contextmanager
def s3() -> Iterator[str]:
    """moto's S3-compatible server, which keeps everything in memory and accepts any keys. Gives its endpoint."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    with running(command, lambda: answers(endpoint), stderr=subprocess.DEVNULL):  # one line per request
        yield endpoint


@contextmanager
def mlflow_server(database: str, artifacts: str, environment: Mapping[str, str]) -> Iterator[str]:
    """MLflow's server, which proxies artifacts, so that clients need no keys. Gives its address.

    database: the address of its database
    artifacts: where it stores artifacts, such as s3://bucket/folder
    environment: additional variables, such as the keys for the artifacts
    """
    port = free_port()
    options = {"backend-store-uri": database, "artifacts-destination": artifacts, "workers": 1}
    options |= {"host": "127.0.0.1", "port": port}
    command = [sys.executable, "-m", "mlflow", "server", *(f"--{key}={value}" for key, value in options.items())]
    variables = os.environ | WITHOUT_JOBS | environment
    with running(command, lambda: answers(f"http://127.0.0.1:{port}/health"), env=variables):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def running(
    command: Sequence[str], ready: Callable[[], bool], *, end: signal.Signals = signal.SIGTERM, **options: object
) -> Iterator[None]:
    """Run a service during the block; then end it and all processes that it started."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start: {' '.join(command)}")
            time.sleep(0.1)
        yield
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, end)
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _postgresql_program(name: str) -> str:
    return find_program(name, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), "postgresql")


def find_program(name: str, folders: Sequence[Path], packages: str) -> str:
    """A program that is not on Debian's PATH. Raises UserError if it is not installed."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, folders)])
    if program := shutil.which(name, path=path):
        return program
    raise UserError(f"{name} is not installed: apt install --no-install-recommends {packages}")

"""Open MLflow's page of the runs, on this machine only: `make ui` brings the store up to date first."""

import argparse
import errno
import os
import socket
import sys
from pathlib import Path

from pipeline.project.console import UserError, run, say
from pipeline.tracking.location import Location, file_address, locate

HOST = "127.0.0.1"


def check_port(port: int) -> None:
    """Raises UserError when a page cannot be opened there: MLflow says so in a traceback, under its own name for it."""
    try:
        socket.create_server((HOST, port)).close()
    except OverflowError:
        raise UserError(f"there is no port {port}: take one from 1024 to 65535, as in `make ui PORT=5001`") from None
    except OSError as error:
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {what}: take another one, as in `make ui PORT={_another(port)}`") from None


def _another(port: int) -> int:
    """The next port that is free, or a usual one."""
    for other in range(max(port, 1023) + 1, 65536):
        try:
            socket.create_server((HOST, other)).close()
            return other
        except OSError:
            continue
    return 5000


def page_environment(location: Location) -> dict[str, str]:
    """What tells MLflow where the store is: any user of the machine can read the arguments, and a password there."""
    variables = {"MLFLOW_BACKEND_STORE_URI": location.address, "MLFLOW_DISABLE_TELEMETRY": "true"}
    if location.artifacts:
        variables["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = location.artifacts
    return variables


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000, help="where the page is to be; 5000 unless given")
    parser.add_argument("--store", default="", help="a SQLite file other than the project's own")
    arguments = parser.parse_args()
    if arguments.store:
        os.environ["MLFLOW_TRACKING_URI"] = file_address(Path(arguments.store))
    location = locate()
    if location.address.startswith("http"):
        say(f"MLflow: {location.name}, the server that MLFLOW_TRACKING_URI names")
        return
    check_port(arguments.port)
    say(f"MLflow: http://{HOST}:{arguments.port} (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "ui", "--host", HOST, "--port", str(arguments.port)]
    os.execve(sys.executable, command, os.environ | page_environment(location))


if __name__ == "__main__":
    run(main)

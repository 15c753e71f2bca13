"""Open MLflow's charts of the runs, on this machine only: `make ui` brings the store up to date first."""

import argparse
import errno
import os
import socket
import subprocess
import sys
import time
import webbrowser
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from pipeline.project.console import UserError, run, say
from pipeline.tracking.charts import pages_of_curves
from pipeline.tracking.faults import explain
from pipeline.tracking.location import Location, file_address, locate
from pipeline.tracking.page import APP, PATH, plugin
from pipeline.tracking.store import open_client, within

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient

HOST = "127.0.0.1"


def check_port(port: int) -> None:
    """Raises UserError if the port cannot be used, which MLflow would report in a traceback."""
    if not 1 <= port <= 65535:
        raise UserError(f"there is no port {port}: take one from 1024 to 65535, as in `make ui PORT=5001`")
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        what = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise UserError(f"port {port} {what}: use another, as in `make ui PORT={_another(port)}`") from None


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
    """What tells MLflow where the store is: any user of the machine could read a password in the arguments.

    One process is enough for one person, and jobs need none.
    """
    variables = {
        "MLFLOW_BACKEND_STORE_URI": location.address,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_WORKERS": "1",
    }
    if location.artifacts:
        variables["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = location.artifacts
    return variables


def chart_pages(client: "MlflowClient", front: str) -> dict[str, str]:
    """The pages with the curves of each experiment that has a run, by name, the newest first."""
    experiments = client.search_experiments(order_by=["last_update_time DESC"])
    used = [each for each in experiments if client.search_runs([each.experiment_id], max_results=1)]
    pages = [page for experiment in used or experiments for page in pages_of_curves(client, experiment).items()]
    return {name: front + page for name, page in pages}


def serve(location: Location, port: int, pages: dict[str, str]) -> None:
    """Show the pages until the user ends it. Raises UserError when MLflow's server ends by itself.

    The server's output, a line per request and warnings, is hidden; only its last line is shown, as the error.
    """
    command = [sys.executable, "-m", "mlflow", "ui", "--app-name", APP, "--host", HOST, "--port", str(port)]
    with (
        plugin() as found,
        TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            command, env=os.environ | page_environment(location) | found, stdout=log, stderr=log
        ) as server,
    ):
        try:
            while not _answers(port) and server.poll() is None:
                time.sleep(0.2)
            if server.poll() is None:
                show(pages, "Ctrl-C ends it")
            server.wait()
            log.seek(0)
            last = (log.read().strip().splitlines() or ["no output"])[-1]
            raise UserError(f"MLflow's server ended: {explain(RuntimeError(last))}")
        except KeyboardInterrupt:
            pass
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    """Whether the server answers, bypassing any proxy."""
    connection = HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status < 400
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def show(pages: dict[str, str], remark: str) -> None:
    """Print the pages' addresses and, on a desktop, open the first."""
    for name, page in pages.items():
        say(f"MLflow, {name}: {page}")
    say(remark)
    if pages and sys.stdout.isatty() and _has_desktop():
        webbrowser.open(next(iter(pages.values())))


def _has_desktop() -> bool:
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000, help="the page's port (default 5000)")
    parser.add_argument("--store", default="", help="a SQLite file other than the project's own")
    arguments = parser.parse_args()
    if arguments.store:
        if not Path(arguments.store).absolute().parent.is_dir():
            raise UserError(f"{arguments.store} not found: name a file in an existing folder")
        os.environ["MLFLOW_TRACKING_URI"] = file_address(Path(arguments.store))
    location = locate()
    on_a_server = location.address.startswith("http")
    if not on_a_server:
        check_port(arguments.port)
    front = f"{location.name}/" if on_a_server else f"http://{HOST}:{arguments.port}{PATH}"
    try:
        pages = within(lambda: chart_pages(open_client(), front))
    except Exception as error:
        raise UserError(explain(error)) from None
    if on_a_server:
        show(pages, f"{location.name} is the server that MLFLOW_TRACKING_URI names: click Model training there")
    else:
        serve(location, arguments.port, pages)


if __name__ == "__main__":
    run(main)

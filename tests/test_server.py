"""A training and a real MLflow server that is down, goes down, or never answers."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipeline.artifacts.history import read_history
from pipeline.demo import workspace_environment
from pipeline.tracking.live import LiveRun
from tests.services import WITHOUT_JOBS, answers, free_port
from tests.test_security import SECRETS, assert_nothing_leaked, contents
from tests.tracked import FACTS, epochs, runs
from tests.workspaces import workspace

pytestmark = pytest.mark.long

MODEL = "lstm_dropout"
EPOCHS = 25
PASSWORD = "planted-in-the-address"


class Server:
    """`mlflow server` on a port of its own, with its store in a folder; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://tester:{PASSWORD}@127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        options = {"backend-store-uri": "sqlite:///store.db", "artifacts-destination": "artifacts", "workers": "1"}
        address = {"host": "127.0.0.1", "port": str(self.port)}
        command = [sys.executable, "-m", "mlflow", "server"]
        for name, value in (options | address).items():
            command += [f"--{name}", value]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=workspace_environment() | WITHOUT_JOBS,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not answers(f"http://127.0.0.1:{self.port}/health"):
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def store(self) -> MlflowClient:
        """The database itself, so that a server that is down can be asked, too."""
        return MlflowClient(f"sqlite:///{self.folder / 'store.db'}")

    def runs(self) -> list[Run]:
        return runs(self.store())

    def wait_for_an_epoch(self) -> None:
        while not MlflowClient(self.uri).search_experiments(filter_string="name = 'recurrent-lm'"):
            time.sleep(0.1)
        while not (self.runs() and self.steps(self.runs()[0])):
            time.sleep(0.1)

    def steps(self, run: Run, metric: str = "perplexity/valid") -> list[int]:
        return [point.step for point in self.store().get_metric_history(run.info.run_id, metric)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that is still down."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return workspace(tmp_path_factory.mktemp("project"), EPOCHS)


@pytest.fixture
def project(preprocessed: Path) -> Path:
    """The same one for all tests, in which nothing has been trained."""
    for folder in (".checkpoints", "results/models"):
        shutil.rmtree(preprocessed / folder, ignore_errors=True)
    return preprocessed


def start(project: Path, stage: str, *arguments: str, uri: str, timeout: int = 10) -> subprocess.Popen:
    settings = {"HTTP_REQUEST_TIMEOUT": str(timeout), "SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2", "TRACKING_URI": uri}
    environment = workspace_environment() | SECRETS | {f"MLFLOW_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", f"pipeline.{stage}", *arguments]
    return subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def output_of(process: subprocess.Popen) -> str:
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert_nothing_leaked(output.encode())
    assert PASSWORD not in output
    return output


def read_until(process: subprocess.Popen, epoch: int) -> str:
    output = ""
    for line in process.stdout:
        output += line
        if re.search(rf"epoch +{epoch}/", line):
            return output
    raise AssertionError(output)


def warnings(output: str) -> list[str]:
    return [line for line in output.splitlines() if "warning" in line]


def test_a_server_that_goes_down_in_mid_training_has_every_epoch_once_when_it_is_back(
    server: Server, project: Path
) -> None:
    server.start()
    training = start(project, "train", MODEL, uri=server.uri)
    server.wait_for_an_epoch()
    server.stop()
    output = read_until(training, EPOCHS // 2)
    training.send_signal(signal.SIGSTOP)  # however fast the machine, the server is back before the end
    try:
        server.start()
    finally:
        training.send_signal(signal.SIGCONT)
    output += output_of(training)
    assert len(warnings(output)) == 1
    assert f"http://127.0.0.1:{server.port} does not answer" in output
    assert "MLflow is up to date again" in output
    (run,) = server.runs()
    assert server.steps(run) == list(range(1, EPOCHS + 1))
    assert run.info.status == "FINISHED"


def test_a_server_that_is_back_only_after_the_training_gets_the_rest_from_the_evaluation_and_no_secret(
    server: Server, project: Path
) -> None:
    server.start()
    training = start(project, "train", MODEL, uri=server.uri)
    server.wait_for_an_epoch()
    server.stop()
    output = output_of(training)
    assert len(warnings(output)) == 2  # when it went away, and at the end
    server.start()
    assert not warnings(output_of(start(project, "evaluate", MODEL, uri=server.uri)))
    (run,) = server.runs()
    assert "restored" not in run.data.tags
    assert server.steps(run) == list(range(1, EPOCHS + 1))
    assert run.info.status == "FINISHED"
    assert {"best_valid_perplexity", "best_test_perplexity"} <= set(run.data.metrics)
    server.stop()
    stored = contents([server.folder / "store.db", *(server.folder / "artifacts").rglob("*")])
    assert b"test_perplexity" in stored
    assert PASSWORD.encode() not in stored
    assert_nothing_leaked(stored)


def test_a_server_down_from_the_start_gets_all_from_the_restoration(server: Server, project: Path) -> None:
    output = output_of(start(project, "train", MODEL, uri=server.uri))
    output += output_of(start(project, "evaluate", MODEL, uri=server.uri))
    assert len(warnings(output)) == 3  # at the training's start and end, and of the evaluation
    restoration = start(project, "restore", uri=server.uri)
    assert restoration.communicate()[0] == (
        f"error: MLflow is behind: http://127.0.0.1:{server.port} does not answer: "
        "run the same command again to write what is missing\n"
    )
    assert restoration.returncode == 1

    server.start()
    assert output_of(start(project, "restore", uri=server.uri)) == f"MLflow: restored {MODEL}\n"
    assert output_of(start(project, "restore", uri=server.uri)) == "MLflow: nothing to restore\n"
    (run,) = server.runs()
    assert run.data.tags["restored"] == "true"
    assert server.steps(run) == list(range(1, EPOCHS + 1))
    history = read_history(project / f"results/models/{MODEL}/history.csv")
    client = MlflowClient(server.uri)
    points = client.get_metric_history(run.info.run_id, "perplexity/valid")
    assert [point.value for point in points] == [record.valid_perplexity for record in history]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "curve.png",
        "history.csv",
        "metrics.json",
        "model.safetensors",
        "params.yaml",
    }


def test_a_server_that_never_answers_costs_the_end_of_a_training_seconds(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        training = start(project, "train", MODEL, uri=uri, timeout=4)
        output = read_until(training, EPOCHS)
        last_epoch = time.monotonic()
        output += output_of(training)
        assert time.monotonic() - last_epoch < 2 * 4 + 60  # an attempt under way, another one, and the picture
        assert len(warnings(output)) == 2
        output = output_of(start(project, "evaluate", MODEL, uri=uri, timeout=1))
        assert len(warnings(output)) == 1


def test_reports_to_a_server_that_never_answers_take_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        run = LiveRun(FACTS)
        beginning = time.monotonic()
        for number in range(1, 60):
            run.publish(epochs(number))
        assert time.monotonic() - beginning < 3  # not even one attempt
        run.end("FINISHED")

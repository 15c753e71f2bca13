"""`make ui`: the store that it opens, the pages that it names, and what it says when it cannot."""

import json
import os
import socket
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import make_url

from pipeline.project.console import UserError
from pipeline.tracking.location import file_address, locate
from pipeline.tracking.page import APP, app, plugin
from pipeline.ui import chart_pages, check_port, main, page_environment, serve, show
from tests.small import ROOT


@pytest.mark.parametrize("store", ["", "other.db", "elsewhere/o?t%41 #er.db"])
def test_the_page_opens_the_store_of_the_pipeline_whatever_the_letters_of_its_path(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "q?m, per%41cent #ü"
    project.mkdir()
    monkeypatch.chdir(project)
    if store:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", file_address(Path(store)))
    environment = page_environment(locate())
    assert make_url(environment["MLFLOW_BACKEND_STORE_URI"]).database == str(project / (store or "mlflow.db"))
    folder = (project / (store or "mlflow.db")).parent
    assert environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] == (folder / "mlruns").as_uri()


@pytest.mark.usefixtures("empty_store")
def test_each_experiment_that_has_a_run_is_named_by_the_page_of_its_curves() -> None:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")  # MLflow remembers a store by its address
    charts = "runs?workflowType=machine_learning&compareRunsMode=CHART"
    assert chart_pages(client, "http://here/") == {"Default": f"http://here/#/experiments/0/{charts}"}
    used = client.create_experiment("used")
    client.create_experiment("unused")
    run = client.create_run(used)
    assert chart_pages(client, "http://here/") == {"used": f"http://here/#/experiments/{used}/{charts}"}
    client.log_metric(run.info.run_id, "perplexity/valid", 100.0)
    for _ in range(2):
        page = f"http://here/#/experiments/{used}/{charts}&viewStateShareKey=curves"
        assert chart_pages(client, "http://here/") == {"used": page}
    assert "searchFilter" not in client.get_experiment(used).tags["mlflow.sharedViewState.curves"]


@pytest.mark.usefixtures("empty_store")
def test_runs_of_several_corpora_have_a_page_for_each() -> None:
    client = MlflowClient(f"sqlite:///{Path('mlflow.db').resolve()}")
    used = client.create_experiment("used")
    for start, corpus in enumerate(("ptb", "wikitext2", "ptb"), start=1):
        run = client.create_run(used, start, {"corpus": corpus})
        client.log_metric(run.info.run_id, "perplexity/valid", 100.0)
    pages = chart_pages(client, "")
    assert [name for name in pages if name != "Default"] == ["used, ptb", "used, wikitext2"]
    assert pages["used, wikitext2"].endswith("&viewStateShareKey=curves-wikitext2")
    view = client.get_experiment(used).tags["mlflow.sharedViewState.curves-wikitext2"]
    assert json.loads(json.loads(view)["state"])["searchFilter"] == "tags.corpus = 'wikitext2'"


def test_mlflow_finds_our_app_without_an_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    with plugin() as found:
        folder, project, mine = found["PYTHONPATH"].split(os.pathsep)
        assert (project, mine) == (str(ROOT), "mine")
        monkeypatch.syspath_prepend(folder)
        (entry,) = entry_points(group="mlflow.app", name=APP)
        assert entry.load() is app


@pytest.mark.parametrize(
    ("terminal", "variables", "opened"),
    [
        (True, {"DISPLAY": ":0"}, ["first"]),
        (True, {"WAYLAND_DISPLAY": "wayland-0"}, ["first"]),
        (True, {"DISPLAY": "localhost:10.0", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, []),
        (True, {}, []),
        (False, {"DISPLAY": ":0"}, []),
    ],
)
def test_a_page_opens_only_for_somebody_at_a_desktop(
    terminal: bool, variables: dict, opened: list, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    asked: list[str] = []
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setattr("webbrowser.open", asked.append)
    show({"one": "first", "two": "second"}, "Ctrl-C ends it")
    assert asked == opened
    assert capsys.readouterr().out == "MLflow, one: first\nMLflow, two: second\nCtrl-C ends it\n"


def test_a_server_that_does_not_start_is_one_line_without_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is replaced by a program that fails."""
    package = Path("mlflow")
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; sys.exit('one\\nno postgresql://me:secret@host/runs')")
    monkeypatch.setenv("PYTHONPATH", ".")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/runs")
    with pytest.raises(UserError, match=r"^MLflow's server ended: postgresql://host: RuntimeError$"):
        serve(locate(), 9, {})


def test_a_password_is_not_among_the_arguments_that_all_users_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/runs")
    assert page_environment(locate())["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@host/runs"


def test_a_server_that_does_not_answer_is_one_line_without_a_password() -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": "http://me:secret@127.0.0.1:9"}
    command = [sys.executable, "-m", "pipeline.ui"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: http://127.0.0.1:9 does not answer\n"


def test_a_taken_port_is_named_with_one_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} is taken: use another, as in `make ui PORT=\d+`") as fault:
            check_port(port)
        check_port(int(str(fault.value).rpartition("=")[2].rstrip("`")))
        monkeypatch.setattr("pipeline.ui.serve", None)
        monkeypatch.setattr(sys, "argv", ["ui", "--port", str(port)])
        with pytest.raises(UserError, match=f"port {port} is taken"):
            main()


def test_a_store_that_is_not_there_is_named_and_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["ui", "--store", "nope/typo.db"])
    with pytest.raises(UserError, match=r"^nope/typo\.db not found"):
        main()
    assert not Path("nope").exists()


@pytest.mark.parametrize("port", [-1, 0, 65536, 10**30])
def test_a_port_that_is_none_is_one_line(port: int) -> None:
    with pytest.raises(UserError, match="there is no port"):
        check_port(port)

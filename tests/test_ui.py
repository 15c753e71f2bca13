"""`make ui`: the store that it opens, and what it says when it cannot."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from pipeline.project.console import UserError
from pipeline.tracking.location import locate
from pipeline.ui import check_port, main, page_environment
from tests.small import ROOT


@pytest.mark.parametrize("store", ["", "other.db", "elsewhere/o?t%41 #er.db"])
def test_the_page_opens_the_store_of_the_pipeline_whatever_the_letters_of_its_path(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow is replaced by a program that tells what it was given."""
    project = tmp_path / "q?m, per%41cent #ü"
    package = project / "mlflow"
    package.mkdir(parents=True)
    program = "import os, sys; print(*sys.argv[1:]); print(*map(os.environ.get, ['MLFLOW_BACKEND_STORE_URI',"
    program += " 'MLFLOW_DEFAULT_ARTIFACT_ROOT']), sep='\\n')"
    (package / "__main__.py").write_text(program)
    (package / "__init__.py").touch()
    monkeypatch.chdir(project)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.ui", "--port", str(port), "--store", store]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([".", str(ROOT)])}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    page, arguments, address, artifacts = result.stdout.splitlines()
    assert page == f"MLflow: http://127.0.0.1:{port} (Ctrl-C ends it)"
    assert arguments == f"ui --host 127.0.0.1 --port {port}"
    assert make_url(address).database == str(project / (store or "mlflow.db"))
    assert artifacts == ((project / (store or "mlflow.db")).parent / "mlruns").as_uri()


def test_a_password_is_not_among_the_arguments_that_all_users_can_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:secret@host/runs")
    assert page_environment(locate())["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@host/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000")
    command = [sys.executable, "-m", "pipeline.ui"]
    said = subprocess.check_output(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True)
    assert said == "MLflow: http://host:5000, the server that MLFLOW_TRACKING_URI names\n"


def test_a_taken_port_is_named_with_one_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port} is taken: take another .*`make ui PORT=\d+`") as fault:
            check_port(port)
        check_port(int(str(fault.value).rpartition("=")[2].rstrip("`")))
        monkeypatch.setattr(os, "execve", None)
        monkeypatch.setattr(sys, "argv", ["ui", "--port", str(port)])
        with pytest.raises(UserError, match=f"port {port} is taken"):
            main()


@pytest.mark.parametrize("port", [-1, 65536, 10**30])
def test_a_port_that_is_none_is_one_line(port: int) -> None:
    with pytest.raises(UserError, match="there is no port"):
        check_port(port)

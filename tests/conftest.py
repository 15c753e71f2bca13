"""Keeps every test off the user's data, results and MLflow store."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:  # neither Playwright nor pytest-xdist is there on every machine
    from tests.browser import Visit
    from tests.dealing import Dealing

# Small models gain nothing from a second thread, and lose much when something else runs on the machine.
os.environ["OMP_NUM_THREADS"] = "1"

os.environ["DVC_NO_ANALYTICS"] = os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# A shell has them ignored in what it runs in the background, as nohup does, and so would whatever a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# Training a small model takes as long as it takes: pytest-timeout bounds each test as a whole.
settings.register_profile("pipeline", deadline=None)
settings.load_profile("pipeline")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "Dealing":
    from tests.dealing import Dealing

    return Dealing(config, log)


@pytest.fixture(autouse=True)
def away_from_the_users_files(tmp_path, monkeypatch):
    """Run each test in its own empty folder: the data, results and MLflow store are found from the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def mlflow_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's store with nothing in it, made once: that takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
    return path


@pytest.fixture
def empty_store(mlflow_tables: Path, away_from_the_users_files: None) -> None:
    """MLflow's store in the test's folder, with nothing in it, for tests of what comes into it."""
    shutil.copy(mlflow_tables, "mlflow.db")


@pytest.fixture
def visit() -> "Iterator[Visit]":
    """A page in a real Chromium."""
    from tests.browser import visit

    with visit() as new:
        yield new

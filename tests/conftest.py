"""Keeps every test off the user's data, results and MLflow store."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:  # Playwright is needed by the browser's tests alone
    from tests.browser import Visit

# Small models gain nothing from a second thread, and lose much when something else runs on the machine.
os.environ["OMP_NUM_THREADS"] = "1"

os.environ["DVC_NO_ANALYTICS"] = os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# Training a small model takes as long as it takes: pytest-timeout bounds each test as a whole.
settings.register_profile("pipeline", deadline=None)
settings.load_profile("pipeline")


# What these modules set up takes longer than most tests.
DEALT_OUT_WHOLE = {"tests/test_pipeline.py", "tests/test_server.py", "tests/test_shared_stores.py"}


class Dealing(LoadScopeScheduling):
    """Deals out one test at a time to the workers of pytest-xdist, and some modules whole, which come first.

    As `--dist loadgroup` would, if it still did with this pytest; by file, the slowest ones came last, on one worker.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if module in DEALT_OUT_WHOLE else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Dealing:
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

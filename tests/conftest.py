"""Keeps every test off the user's data, results and MLflow store."""

import os

import pytest
from hypothesis import settings

# Small models gain nothing from a second thread, and lose much when something else runs on the machine.
os.environ["OMP_NUM_THREADS"] = "1"

# Training a small model takes as long as it takes: pytest-timeout bounds each test as a whole.
settings.register_profile("pipeline", deadline=None)
settings.load_profile("pipeline")


@pytest.fixture(autouse=True)
def away_from_the_users_files(tmp_path, monkeypatch):
    """Run each test in its own empty folder: the data, results and MLflow store are found from the working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")

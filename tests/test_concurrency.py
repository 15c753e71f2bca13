"""Several training runs at once, through the real DVC: every run is complete in one intact MLflow store."""

import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from zc.lockfile import LockFile

from tests.small import ROOT
from tests.test_pipeline import Repository

pytestmark = pytest.mark.long

MODELS = ["lstm_dropout", "lstm", "gru_dropout", "gru"]
EPOCHS = 4


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A repository with its data in DVC's cache, nothing trained, and no MLflow store."""
    repository = Repository(tmp_path / "repository")
    repository.edit_params(lambda params: params["train"].update(epochs=EPOCHS))
    repository.dvc("repro", "preprocess")
    repository.commit("data")
    assert not (repository.path / "mlflow.db").exists()
    return repository


def assert_whole(repository: Repository, run: Run, epochs: int = EPOCHS) -> None:
    client = MlflowClient(f"sqlite:///{repository.path / 'mlflow.db'}")
    for metric in ("perplexity/valid", "training/grad_norm"):
        points = client.get_metric_history(run.info.run_id, metric)
        assert [point.step for point in points] == list(range(1, epochs + 1))
    assert run.info.status == "FINISHED"
    assert run.data.params["epochs"] == str(epochs)
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"params.yaml", "history.csv", "model.safetensors", "curve.png"} <= files


def assert_database_whole(repository: Repository) -> None:
    database = sqlite3.connect(repository.path / "mlflow.db")
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()


def test_four_models_trained_at_once_in_a_fresh_clone_are_four_complete_runs(repository: Repository) -> None:
    shutil.copy(ROOT / "Makefile", repository.path)
    lock = LockFile(str(repository.path / ".dvc/tmp/lock"))  # held by another command, longer than DVC waits
    threading.Timer(6, lock.close).start()
    output = repository.run("make", "-o", ".venv/.complete", "repro", "JOBS=4")
    assert "warning: MLflow" not in output
    runs = repository.runs()
    assert sorted(run.info.run_name for run in runs) == sorted(MODELS)
    for run in runs:
        assert_whole(repository, run)
    assert_database_whole(repository)
    assert repository.dvc("status", *(f"train@{model}" for model in MODELS)).strip().endswith("up to date.")


def test_experiments_from_a_queue_and_a_temporary_copy_all_reach_the_real_store(repository: Repository) -> None:
    for model, epochs in (("lstm", 2), ("gru", 3)):
        setting = f"+models.{model}.epochs={epochs}"
        repository.dvc("exp", "run", "--queue", "-n", f"queued-{model}", "-S", setting, f"evaluate@{model}")
    repository.dvc("queue", "start", "-j", "2")
    try:
        while "Queued" in (status := repository.dvc("queue", "status")) or "Running" in status:
            time.sleep(2)
    finally:
        repository.dvc("queue", "stop", "--kill")
    assert status.count("Success") == 2, status
    repository.dvc("exp", "run", "--temp", "-n", "apart", "-S", "+models.gru_dropout.epochs=1", "evaluate@gru_dropout")

    runs = {run.data.tags["dvc_experiment"]: run for run in repository.runs()}
    assert set(runs) == {"queued-lstm", "queued-gru", "apart"}
    client = MlflowClient(f"sqlite:///{repository.path / 'mlflow.db'}")
    for name, epochs in (("queued-lstm", 2), ("queued-gru", 3), ("apart", 1)):
        assert_whole(repository, runs[name], epochs)
        assert "best_test_perplexity" in runs[name].data.metrics
        assert Path(runs[name].info.artifact_uri.removeprefix("file://")).is_relative_to(repository.path)
        (version,) = client.search_model_versions(f"run_id = '{runs[name].info.run_id}'")
        assert client.get_model_version_by_alias(version.name, "champion").version == version.version
    assert_database_whole(repository)
    assert "apart" in repository.dvc("exp", "show")
    assert not list(repository.path.glob(".checkpoints/*.pt"))


@pytest.mark.parametrize("arguments", ["JOBS=0", "JOBS=01", "JOBS=two", "JOBS=", "JOBS=2 ARGS=evaluate@gru"])
def test_an_invalid_number_of_jobs_or_jobs_with_a_stage_is_an_error(arguments: str) -> None:
    command = ["make", "-o", ".venv/.complete", "repro", *arguments.split()]
    make = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (make.returncode, make.stdout) == (2, "")
    assert "*** JOBS" in make.stderr

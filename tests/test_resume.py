"""Killed at any moment, a training goes on to the result that it would have had."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ruamel.yaml import YAML

from pipeline.checkpoint import exclusive, load_checkpoint
from pipeline.console import UserError
from pipeline.demo import RECIPE, build_workspace, workspace_environment
from pipeline.files import sha256
from pipeline.history import read_history
from tests.small import ROOT

KILLS = 3
MODEL = "lstm_dropout"


def workspace(path: Path) -> Path:
    """A folder with a preprocessed sample corpus and the demo's models."""
    build_workspace(path, RECIPE)
    yaml = YAML(typ="safe", pure=True)
    params = yaml.load((path / "params.yaml").read_text())
    params["train"]["epochs"] = 20
    with (path / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    for stage in ("download", "preprocess"):
        subprocess.run([sys.executable, "-m", f"pipeline.{stage}"], cwd=path, env=workspace_environment(), check=True)
    return path


def start_training(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline.train", MODEL]
    return subprocess.Popen(command, cwd=folder, env=workspace_environment(), stdout=subprocess.DEVNULL)


def result(folder: Path) -> tuple[str, list[tuple[float, ...]]]:
    """The weights' SHA-256, and all of the history but its times."""
    files = folder / "results/models" / MODEL
    history = read_history(files / "history.csv")
    numbers = [(r.epoch, r.learning_rate, r.train_perplexity, r.valid_perplexity, r.grad_norm) for r in history]
    return sha256(files / "model.safetensors"), numbers


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_a_training_killed_at_random_moments_ends_as_if_it_never_was(tmp_path: Path) -> None:
    undisturbed, disturbed = workspace(tmp_path / "undisturbed"), workspace(tmp_path / "disturbed")
    assert start_training(undisturbed).wait() == 0

    moments, kills = random.Random(1), 0
    process = start_training(disturbed)
    while kills < KILLS:
        try:
            process.wait(moments.uniform(4, 8))
            break  # a fast machine: it was over before
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            process = start_training(disturbed)
    assert process.wait() == 0
    assert kills

    assert result(disturbed) == result(undisturbed)
    assert not list((disturbed / ".checkpoints").glob("*.pt"))
    client = MlflowClient(f"sqlite:///{disturbed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("recurrent-lm")
    (run,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(run.info.run_id, "perplexity/valid")
    assert [(point.step, point.value) for point in points] == [(row[0], row[3]) for row in result(disturbed)[1]]
    assert run.info.status == "FINISHED"


@pytest.mark.slow
def test_a_process_killed_while_it_makes_the_mlflow_store_leaves_none_that_is_broken(tmp_path: Path) -> None:
    program = "from pipeline.tracking import connect; connect()"
    command, environment = [sys.executable, "-c", program], workspace_environment() | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    while not list(tmp_path.glob("*mlflow.db*")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()  # in the midst of MLflow's making its tables
    assert process.wait() != 0
    assert not (tmp_path / "mlflow.db").exists()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "lstm-1234.pt"
    for content in (b"", b"not a checkpoint", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"lstm-1234\.pt is damaged: delete it"):
            load_checkpoint(path)


def test_a_second_training_of_the_same_kind_says_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lstm-1234.pt"
    with exclusive(path):
        holder = (tmp_path / "lstm-1234.holder").read_text()
        with pytest.raises(UserError, match=f"process {holder} is training"), exclusive(path):
            pass
    with exclusive(path):  # free again
        pass

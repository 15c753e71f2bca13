"""A training run killed at any moment continues to the result that it would have had."""

import json
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pipeline.artifacts.checkpoint import exclusive, load_checkpoint, save_checkpoint
from pipeline.artifacts.history import read_history
from pipeline.demo import workspace_environment
from pipeline.project.console import UserError
from pipeline.project.files import sha256
from pipeline.settings.params import read_yaml
from tests.small import ROOT
from tests.workspaces import workspace


def start_training(folder: Path, model: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "pipeline.train", model]
    return subprocess.Popen(command, cwd=folder, env=workspace_environment(), stdout=subprocess.PIPE)


def result(folder: Path, model: str) -> tuple[str, list[tuple[float, ...]]]:
    """The weights' SHA-256, and the history without times."""
    files = folder / "results/models" / model
    history = read_history(files / "history.csv")
    numbers = [(r.epoch, r.learning_rate, r.train_perplexity, r.valid_perplexity, r.grad_norm) for r in history]
    return sha256(files / "model.safetensors"), numbers


def train_to_the_end(folder: Path, model: str) -> None:
    process = start_training(folder, model)
    process.communicate()
    assert process.returncode == 0


def train_and_kill(folder: Path, model: str, kills: int, most_lines: int, epoch_seconds: float) -> None:
    """Train to the end, killed this many times, each time within an epoch of a random line that it prints.

    That may be before the first line, during the start, or after some epochs. After a number of seconds it would be
    another moment on a machine that has become busier since they were measured.
    """
    moments = random.Random(model)
    for _ in range(kills):
        with start_training(folder, model) as process:
            assert process.stdout is not None
            for _ in range(moments.randint(0, most_lines)):
                assert process.stdout.readline()  # otherwise it has ended before the last kill
            time.sleep(moments.random() * epoch_seconds)
            process.kill()
        assert process.returncode == -signal.SIGKILL
    train_to_the_end(folder, model)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["lstm_dropout", "lstm", "gru_dropout", "gru"])
def test_a_training_run_killed_at_random_moments_ends_like_an_undisturbed_one(model: str, tmp_path: Path) -> None:
    epochs, kills = 20, 3
    undisturbed, disturbed = workspace(tmp_path / "undisturbed", epochs), workspace(tmp_path / "disturbed", epochs)
    train_to_the_end(undisturbed, model)
    epoch_seconds = statistics.median(
        record.seconds for record in read_history(undisturbed / "results/models" / model / "history.csv")
    )
    train_and_kill(disturbed, model, kills, epochs // kills - 2, epoch_seconds)

    assert result(disturbed, model) == result(undisturbed, model)
    assert len(list((disturbed / ".checkpoints").glob("*.pt"))) == 1  # until DVC has recorded the results
    client = MlflowClient(f"sqlite:///{disturbed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("recurrent-lm")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for metric, column in (("training/learning_rate", 1), ("perplexity/train", 2), ("perplexity/valid", 3)):
        points = client.get_metric_history(run.info.run_id, metric)
        assert [(point.step, point.value) for point in points] == [
            (row[0], row[column]) for row in result(disturbed, model)[1]
        ]


def give_teachers(folder: Path) -> None:
    """The model `lstm` of a workspace learns from an LSTM and a GRU."""
    params = read_yaml(folder / "params.yaml")
    teachers = [{"epochs": 6, "seed": 2}, {"epochs": 6, "cell": "gru", "learning_rate": 0.5}]
    params["models"]["lstm"] |= {"distillation": {"share": 0.5, "teachers": teachers}}
    (folder / "params.yaml").write_text(json.dumps(params))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_model_with_teachers_killed_twenty_times_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    kills = 20
    undisturbed, disturbed = (workspace(tmp_path / name, epochs=kills) for name in ("undisturbed", "disturbed"))
    for folder in (undisturbed, disturbed):
        give_teachers(folder)
    train_to_the_end(undisturbed, "lstm")
    files = Path("results/models/lstm")
    seconds = statistics.median(record.seconds for record in read_history(undisturbed / files / "history.csv"))
    # A start says a line for itself, one for each teacher that is finished and one for each epoch.
    train_and_kill(disturbed, "lstm", kills, 3, seconds)

    assert result(disturbed, "lstm") == result(undisturbed, "lstm")
    names = {"lstm": "history.csv", "lstm_teacher_1": "teacher_1.csv", "lstm_teacher_2": "teacher_2.csv"}
    client = MlflowClient(f"sqlite:///{disturbed / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("recurrent-lm")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["model"] for run in runs) == sorted(names)
    for run in runs:
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(run.info.run_id, "perplexity/valid")
        histories = [
            read_history(folder / files / names[run.data.tags["model"]]) for folder in (undisturbed, disturbed)
        ]
        for history in histories:
            epochs = [(record.epoch, record.valid_perplexity) for record in history]
            assert [(point.step, point.value) for point in points] == epochs


@pytest.mark.slow
def test_a_process_killed_while_it_creates_the_mlflow_store_leaves_no_broken_one(tmp_path: Path) -> None:
    program = "from pipeline.tracking.store import connect; connect()"
    command, environment = [sys.executable, "-c", program], workspace_environment() | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment)
    while not list(tmp_path.glob("*mlflow.db*")) and process.poll() is None:
        time.sleep(0.01)
    process.kill()  # in the midst of MLflow's making its tables
    assert process.wait() != 0
    assert not (tmp_path / "mlflow.db").exists()
    subprocess.run(command, cwd=tmp_path, env=environment, check=True)


@pytest.mark.long
def test_a_full_disk_is_an_error_in_one_line_and_the_training_continues_once_there_is_space(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "full", epochs=2)
    command = [sys.executable, "-m", "pipeline.train", "gru"]

    def train(limit_bytes: int) -> subprocess.CompletedProcess:
        """Under a limit on file sizes, which the system enforces like a full disk."""
        return subprocess.run(
            command,
            cwd=folder,
            env=workspace_environment(),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
        )

    full = train(100_000)
    assert full.returncode == 1
    assert "Traceback" not in full.stdout + full.stderr
    assert "error: File too large: " in full.stderr.splitlines()[-1]
    assert not list((folder / ".checkpoints").glob("*.p*"))  # nor anything half-written
    assert train(resource.RLIM_INFINITY).returncode == 0


def test_what_was_saved_stays_intact_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "lstm-1234.pt"
    save_checkpoint(path, {"weights": torch.ones(10)})
    program = f"""
import resource, torch
from pathlib import Path
from pipeline.artifacts.checkpoint import save_checkpoint
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
save_checkpoint(Path({str(path)!r}), {{"weights": torch.ones(1_000_000)}})
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27] File too large" in run.stderr
    assert torch.equal(load_checkpoint(path)["weights"], torch.ones(10))
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_checkpoint_is_an_error_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "lstm-1234.pt"
    for content in (b"", b"not a checkpoint", b"PK\x03\x04 cut off"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"lstm-1234\.pt is damaged: delete it"):
            load_checkpoint(path)


def test_a_second_training_of_the_same_model_says_which_process_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "lstm-1234.pt"
    with exclusive(path):
        holder = (tmp_path / "lstm-1234.holder").read_text()
        with pytest.raises(UserError, match=f"process {holder} is already training"), exclusive(path):
            pass
    with exclusive(path):  # free again
        pass


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminated_training_run_continues_at_the_same_step(processes: int, tmp_path: Path) -> None:
    undisturbed, disturbed = (workspace(tmp_path / name, 3) for name in ("undisturbed", "disturbed"))
    for folder in (undisturbed, disturbed):
        params = folder / "params.yaml"
        params.write_text(json.dumps(read_yaml(params) | {"processes": processes}))
    train_to_the_end(undisturbed, "gru_dropout")
    with start_training(disturbed, "gru_dropout") as process:
        assert process.stdout is not None
        while b"epoch 1/3" not in process.stdout.readline():
            pass
        time.sleep(read_history(undisturbed / "results/models/gru_dropout/history.csv")[1].seconds / 2)
        process.terminate()
    with start_training(disturbed, "gru_dropout") as process:
        printed = process.communicate()[0]
    assert re.search(rb"continuing after step \d+ of epoch [23]", printed)
    assert result(disturbed, "gru_dropout") == result(undisturbed, "gru_dropout")

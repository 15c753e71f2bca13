"""Processes that share a training make the updates that one on its own makes, and end together."""

import copy
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.distributed as dist
from mlflow import MlflowClient
from torch import multiprocessing

from pipeline import train as command
from pipeline.artifacts.history import read_history
from pipeline.demo import workspace_environment
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from pipeline.project import processes
from pipeline.project.console import UserError
from pipeline.project.processes import PATIENCE, broadcast
from pipeline.settings.params import read_yaml
from tests.small import committed_params, recipe_text
from tests.workspaces import workspace

VOCAB = 50
STEPS = 50
INTERRUPTED = ["lstm_dropout", "gru"]


def settings_of(name: str) -> Settings:
    """A model of params.yaml, with fewer units, whatever can be dropped dropped, and a batch that does not come out."""
    small = {"hidden_size": 24, "embedding_size": 16, "precision": "float32", "device": "cpu", "epochs": 2}
    settings = committed_params().model(name)
    drop = {"weight_dropout": settings.dropout / 2}
    return settings.model_copy(update=small | drop | {"random_windows": True})


def trajectory(settings: Settings) -> tuple[torch.Tensor, list[tuple[float, float, float]]]:
    """Weights after every step [steps, parameters], and the perplexities and gradient norm of two epochs."""
    text = torch.randint(VOCAB, (settings.batch_size * settings.bptt * STEPS // 2,), generator=torch.Generator())
    training = Training(settings, text, text[:1234], VOCAB)
    weights: dict[tuple[int, int], torch.Tensor] = {}  # by epoch and step, which stay as they are in validation

    def note() -> None:
        own = torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])
        weights[len(training.history), training.current.steps] = own

    records = [training.run_epoch(note) for _ in range(settings.epochs)]
    return torch.stack([*weights.values()]), [(r.train_perplexity, r.valid_perplexity, r.grad_norm) for r in records]


def interrupted(settings: Settings) -> torch.Tensor:
    """The weights after two epochs, from a training that all processes left in the middle of the second."""
    text = torch.randint(VOCAB, (settings.batch_size * settings.bptt * STEPS // 2,), generator=torch.Generator())
    training = Training(settings, text, text[:1234], VOCAB)
    training.run_epoch()
    saved = []

    def leave() -> None:
        if training.current.steps == 7:
            saved.append(copy.deepcopy(broadcast(training.state_dict())))
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        training.run_epoch(leave)
    training = Training(settings, text, text[:1234], VOCAB)
    training.load_state_dict(saved[0])
    training.run_epoch()
    return torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])


def share(rank: int, processes: int, names: list[str], folder: Path) -> None:
    """One of several processes that train models together."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    torch.save([trajectory(settings_of(name)) for name in names], folder / f"{rank}.pt")
    torch.save({name: interrupted(settings_of(name)) for name in INTERRUPTED}, folder / f"{rank}-interrupted.pt")
    dist.destroy_process_group()


def test_two_processes_make_the_updates_of_one_step_by_step(tmp_path: Path) -> None:
    names = ["lstm_dropout", "lstm", "gru_dropout", "gru"]
    multiprocessing.spawn(share, (2, names, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for rank, undisturbed in enumerate((first, second)):
        for name, end in torch.load(tmp_path / f"{rank}-interrupted.pt").items():
            assert torch.equal(undisturbed[names.index(name)][0][-1], end), f"{name}, interrupted, process {rank}"
    for name, (weights, records), (others, their_records) in zip(names, first, second, strict=True):
        assert torch.equal(weights, others), name
        assert records == their_records, name
        alone, alone_records = trajectory(settings_of(name))
        assert len(weights) >= STEPS
        torch.testing.assert_close(weights, alone, rtol=0, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert records == [pytest.approx(record, rel=1e-5) for record in alone_records], name


def set_processes(folder: Path, number: int) -> None:
    params = folder / "params.yaml"
    params.write_text(json.dumps(read_yaml(params) | {"processes": number}))


def start(folder: Path, model: str, *within: str) -> subprocess.Popen:
    command = [*within, sys.executable, "-m", "pipeline.train", model]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=workspace_environment(), **streams)


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_others_and_one_process_alone_can_go_on(tmp_path: Path, victim: int) -> None:
    folder = workspace(tmp_path / "project", epochs=4)
    alone = workspace(tmp_path / "alone", epochs=4)
    set_processes(folder, 2)
    training = start(folder, "gru_dropout")
    printed = ""
    while "epoch 1/4" not in printed:
        printed += training.stdout.readline()
    psutil.Process(training.pid).children()[victim].kill()
    printed += training.communicate(timeout=PATIENCE.total_seconds())[0]
    assert training.returncode == 1
    assert printed.count("error: ") == 1
    assert f"error: process {victim} of 2 was ended by SIGKILL: run the same command to continue" in printed
    assert "Traceback" not in printed

    set_processes(folder, 1)
    for place in (folder, alone):
        again = start(place, "gru_dropout")
        printed = again.communicate()[0]
        assert again.returncode == 0, printed
        assert ("continuing after epoch" in printed) == (place == folder)
    one, two = (read_history(place / "results/models/gru_dropout/history.csv") for place in (alone, folder))
    valid = [record.valid_perplexity for record in one]
    assert [record.valid_perplexity for record in two] == pytest.approx(valid, rel=1e-3)  # in bfloat16, maybe
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("recurrent-lm").experiment_id])
    assert [point.step for point in client.get_metric_history(run.info.run_id, "perplexity/valid")] == [1, 2, 3, 4]


@pytest.mark.parametrize("processes", [3, 64])
def test_a_batch_that_cannot_be_shared_is_seen_before_a_process_starts(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("params.yaml").write_text(recipe_text("demo"))
    set_processes(Path(), processes)
    monkeypatch.setattr(sys, "argv", ["train", "lstm"])
    monkeypatch.setattr(command, "launch", None)
    with pytest.raises(UserError, match=f"lstm: {processes} processes cannot share a batch_size of 20 evenly"):
        command.main()


def unnamed_host() -> list[str]:
    """A command that runs another one on a host whose name nobody knows."""
    return ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname no-such-host-4711 && exec "$@"', "sh"]


def can_unname_the_host() -> bool:
    try:
        return subprocess.run([*unnamed_host(), "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.long
@pytest.mark.skipif(not can_unname_the_host(), reason="needs Linux's unshare and the right to a host name of its own")
def test_processes_meet_where_the_hosts_name_does_not_resolve(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "project", epochs=1)
    set_processes(folder, 2)
    training = start(folder, "lstm", *unnamed_host())
    printed = training.communicate()[0]
    assert training.returncode == 0, printed
    assert "epoch 1/1" in printed
    assert "c10d" not in printed


@pytest.mark.long
def test_a_batch_that_cannot_be_shared_evenly_is_one_line(tmp_path: Path) -> None:
    folder = workspace(tmp_path / "project", epochs=1)
    set_processes(folder, 3)
    training = start(folder, "lstm")
    printed = training.communicate()[0]
    assert training.returncode == 1
    assert printed.count("error: ") == 1
    assert "lstm: 3 processes cannot share a batch_size of 20 evenly" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("shell", ["sh -c", "bash --noprofile --norc -c", "zsh --no-rcs -c", "fish --no-config -c"])
def test_the_shell_between_dvc_and_a_stage_is_not_taken_for_dvc(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc = ["python", "-m", "dvc", "repro"]
    parents = [SimpleNamespace(cmdline=lambda line=line: line) for line in ([*shell.split(), "python ..."], dvc)]
    monkeypatch.setenv("DVC_STAGE", "train@lstm")
    monkeypatch.setattr(processes.psutil, "Process", lambda: SimpleNamespace(parents=lambda: parents))
    assert processes._dvc_process().cmdline() == dvc

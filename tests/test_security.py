"""Secrets stay where they are, files are data and never code, and MLflow's page is for this machine alone."""

import pickle
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.artifacts.checkpoint import load_checkpoint
from pipeline.artifacts.history import write_history
from pipeline.artifacts.weights import load_weights
from pipeline.corpus.ids import load_corpus, write_corpus
from pipeline.demo import workspace_environment
from pipeline.project.console import UserError
from pipeline.tracking.finished import publish
from tests.services import answers, free_port, running
from tests.small import ROOT
from tests.tracked import FACTS, epochs, follow

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI-planted-key",
    "MLFLOW_TRACKING_USERNAME": "tester-by-name",
    "MLFLOW_TRACKING_PASSWORD": "planted-password-6b1d",
    "SOME_TOKEN": "planted-token-93f1c27a55",
}


def contents(files: Iterable[Path]) -> bytes:
    return b"\n".join(path.read_bytes() for path in files if path.is_file())


def assert_nothing_leaked(text: bytes) -> None:
    for secret in SECRETS.values():
        assert secret.encode() not in text


def test_no_secret_of_the_environment_reaches_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    write_history(Path("history.csv"), epochs(2))
    follow(epochs(2), files=[Path("history.csv")])
    publish(FACTS, epochs(2), [Path("history.csv")], {"test_perplexity": 140.5})
    stored = contents(tmp_path.rglob("*"))
    assert FACTS.fingerprint.encode() in stored  # what is stored is found by this search
    assert b"310.0" in stored
    assert_nothing_leaked(stored + "".join(capfd.readouterr()).encode())


class Malicious:
    """Unpickled, it makes the file `executed`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


def as_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Malicious()))


def as_torch_file(path: Path) -> None:
    torch.save({"model": Malicious()}, path)


def as_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Malicious()], dtype=object), allow_pickle=True)


def load_ids(path: Path) -> None:
    ids = np.zeros(4, dtype=np.uint16)
    planted = path.read_bytes()
    write_corpus({"train": ids, "valid": ids, "test": ids}, ["<eos>", "word"], path.parent)
    (path.parent / "train.npy").write_bytes(planted)
    load_corpus(path.parent)


@pytest.mark.parametrize("plant", [as_pickle, as_torch_file, as_array])
@pytest.mark.parametrize("load", [load_checkpoint, load_weights, load_ids])
def test_a_planted_pickle_is_refused_and_not_executed(
    plant: Callable[[Path], None], load: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "planted"
    plant(path)
    with pytest.raises(UserError):
        load(path)
    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(Malicious()))
    assert Path("executed").exists()  # the trap is live


@pytest.mark.slow
def test_the_page_of_make_ui_is_reached_from_this_machine_alone(tmp_path: Path) -> None:
    port = free_port()
    plan = ["make", "-n", "-o", ".venv/.complete", "ui", f"PORT={port}", f"STORE={tmp_path / 'store.db'}"]
    recipe = subprocess.check_output(plan, cwd=ROOT, env=workspace_environment(), text=True).splitlines()
    (command,) = [line for line in recipe if line.startswith("python -m pipeline.ui")]
    environment = workspace_environment() | {"MLFLOW_WORKERS": "1"}
    with running([command], lambda: answers(f"http://127.0.0.1:{port}/health"), shell=True, cwd=ROOT, env=environment):
        assert not answers(f"http://127.0.0.2:{port}/health")  # as every address would, were it bound to all

"""The weights that git keeps: those of the reference run, and nothing else."""

import configparser

import pytest

from pipeline.artifacts.dvc_lock import LOCK, Lock, dvc_md5
from pipeline.artifacts.weights import weights_path
from pipeline.project.files import REFERENCE
from pipeline.reference import kept
from pipeline.settings.params import parse_yaml
from pipeline.tracking.origin import commit_that_brought, text_at
from tests.small import ROOT

CARD = REFERENCE / "README.md"


def digests_of_weights(lock: str) -> set[str]:
    """Of all trained models in a dvc.lock, given as text."""
    stages = Lock.model_validate(parse_yaml(lock, LOCK)).stages
    trained = {name.partition("@")[2]: stage for name, stage in stages.items() if name.startswith("train@")}
    return {digest for model, stage in trained.items() if (digest := stage.md5(weights_path(model)))}


def test_git_keeps_the_weights_that_dvc_lock_names_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above all no corpus: its licence does not allow it. dvc.lock: of the commit that brought the weights."""
    monkeypatch.chdir(ROOT)
    files = {path for path in REFERENCE.rglob("*") if path.is_file() and path != CARD}
    commit = commit_that_brought(REFERENCE / "files")
    lock = text_at(commit, LOCK) if commit else LOCK.read_text()
    assert len(files) == 4
    assert files == {kept(digest) for digest in digests_of_weights(lock)}
    assert files == {kept(dvc_md5(path)) for path in files}


def test_what_a_person_pushes_does_not_get_there() -> None:
    """DVC pushes into a remote that it was told, or that is the default."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert (ROOT / ".dvc" / config["'remote \"reference\"'"]["url"]).resolve() == ROOT / REFERENCE
    assert "remote" not in config["core"]
    assert not any("remote:" in line for line in (ROOT / "dvc.yaml").read_text().splitlines())

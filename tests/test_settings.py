"""A setting that is off by default can be added without touching what exists."""

import runpy
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pipeline.artifacts import weights
from pipeline.artifacts.checkpoint import fingerprint
from pipeline.artifacts.weights import Description, load_weights, save_weights
from pipeline.lm.model import build_model
from pipeline.lm.settings import Probability, Settings
from pipeline.project.console import UserError
from pipeline.project.files import sha256
from pipeline.settings.mistakes import validate
from pipeline.settings.overlay import overlay
from tests.small import ROOT, small_settings

OLD = small_settings().model_dump()


class NewSettings(Settings):
    """With a made-up setting."""

    zoneout: Probability = 0.0


class NewDescription(Description):
    settings: NewSettings


def save(path: Path, settings: Settings) -> Path:
    copies = {name: weight.clone() for name, weight in build_model(settings, 3).state_dict().items()}
    save_weights(path, copies, settings, ("<eos>", "a", "b"), "f1a9")
    return path


def test_an_older_params_file_means_what_it_meant() -> None:
    new = validate(NewSettings, OLD, Path("params.yaml"))
    assert new.zoneout == 0.0
    assert new.essentials() == Settings.model_validate(OLD).essentials()


def test_a_params_file_may_leave_out_what_is_off() -> None:
    off = {"tied_weights", "dropout", "embedding_dropout", "output_dropout", "locked_dropout", "weight_dropout"}
    short = {name: value for name, value in OLD.items() if name not in off | {"random_windows"}}
    assert Settings.model_validate(short) == Settings.model_validate(OLD)


def test_the_page_of_settings_is_that_of_the_schema() -> None:
    page = runpy.run_path(str(ROOT / "docs/settings.py"))["page"]()
    assert (ROOT / "docs/settings.md").read_text() == f"{page}\n"
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| `")]
    assert len(rows) > 60
    assert all(row[-1].strip(" |") for row in rows)  # what each does is said


def test_an_unknown_key_is_still_refused() -> None:
    with pytest.raises(UserError, match="zoneuot: no such setting; did you mean zoneout"):
        validate(NewSettings, OLD | {"zoneuot": 0.1}, Path("params.yaml"))


def test_checkpoints_and_weights_are_known_by_the_same_names_and_bytes(tmp_path: Path) -> None:
    old, new = Settings.model_validate(OLD), NewSettings.model_validate(OLD)
    assert fingerprint(new, "corpus") == fingerprint(old, "corpus")
    assert sha256(save(tmp_path / "new", new)) == sha256(save(tmp_path / "old", old))
    on = NewSettings.model_validate(overlay(OLD, {"zoneout": 0.1}))
    assert fingerprint(on, "corpus") != fingerprint(old, "corpus")


def test_older_weights_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "old", Settings.model_validate(OLD))
    monkeypatch.setattr(weights, "Description", NewDescription)
    assert load_weights(path).settings == NewSettings.model_validate(OLD)


def test_tied_weights_are_saved_once_and_older_files_that_have_them_twice_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = Settings.model_validate(overlay(OLD, {"tied_weights": True, "embedding_size": 4, "hidden_size": 4}))
    once = save(tmp_path / "once", tied)
    with monkeypatch.context() as older:
        older.setattr(weights, "TIED", "")
        twice = save(tmp_path / "twice", tied)
    with safe_open(once, "np") as short, safe_open(twice, "np") as long:
        assert set(long.keys()) - set(short.keys()) == {"output.weight"}
    expected = build_model(tied, 3).state_dict()
    for path in (once, twice):
        loaded = load_weights(path).model
        assert loaded.output.weight is loaded.embedding.weight
        assert all(torch.equal(weight, expected[name]) for name, weight in loaded.state_dict().items())

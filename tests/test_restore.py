"""What MLflow gets from the files in results/: every finished training run once, and no other."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from mlflow.entities import Run
from ruamel.yaml import YAML

from pipeline.artifacts.history import write_history
from pipeline.artifacts.weights import save_weights
from pipeline.corpus.ids import write_corpus
from pipeline.lm.model import build_model
from pipeline.project.console import UserError
from pipeline.project.files import SPLITS
from pipeline.restore import restore
from tests.histories import history
from tests.small import ROOT, committed_document, small_settings
from tests.tracked import artifacts, points, runs, store, store_address

EPOCHS = 3
SETTINGS = small_settings(epochs=EPOCHS)
VOCABULARY = ("<eos>", "<unk>", "word")
HISTORY = history([90.0, 80.0, 85.0])


@pytest.fixture(autouse=True)
def trained_model(empty_store: None) -> Path:
    """params.yaml, and the folder results/models/gru as after a training run without DVC."""
    yaml = YAML(typ="safe", pure=True)
    params = committed_document()
    params["train"] = SETTINGS.model_dump()
    params["models"] = {"gru": {}}
    with open("params.yaml", "w") as file:
        yaml.dump(params, file)
    folder = Path("results/models/gru")
    write_history(folder / "history.csv", HISTORY)
    write_metrics(folder)
    return folder


def write_metrics(folder: Path, valid: float = 80.0) -> None:
    metrics = {"train_perplexity": 70.0, "valid_perplexity": valid, "test_perplexity": 81.5}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"best_epoch": 2, "parameters": 1234}))


def write_weights(folder: Path, data_sha256: str | None = None, **overrides: object) -> None:
    settings = small_settings(epochs=EPOCHS, **overrides)
    weights = build_model(settings, len(VOCABULARY)).state_dict()
    save_weights(folder / "model.safetensors", weights, settings, VOCABULARY, "f1a9", data_sha256=data_sha256)


def lock(folder: Path, **overrides: object) -> None:
    """Write dvc.lock as if DVC had trained the model in the folder."""
    outs = [
        {"path": path.as_posix(), "md5": hashlib.md5(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.name != "metrics.json"
    ]
    values = {"train": SETTINGS.model_dump(), f"models.{folder.name}": overrides}
    stage = {"outs": outs, "params": {"params.yaml": values}}
    with open("dvc.lock", "w") as file:
        YAML(typ="safe", pure=True).dump({"stages": {f"train@{folder.name}": stage}}, file)


def only_run() -> Run:
    (run,) = runs()
    return run


def test_a_training_run_missing_from_mlflow_is_restored_completely_and_once() -> None:
    assert restore() == ["gru"]
    assert restore() == []
    run = only_run()
    assert run.info.status == "FINISHED"
    assert run.data.tags["restored"] == "true"
    assert "fingerprint" not in run.data.tags
    assert points(run, "perplexity/valid") == [(1, 90.0), (2, 80.0), (3, 85.0)]
    assert points(run, "best_test_perplexity") == [(0, 81.5)]
    assert artifacts(run) == {"history.csv", "metrics.json", "params.yaml", "curve.png"}
    assert run.data.params["hidden_size"] == "16"


def test_what_arrives_later_completes_the_same_run(trained_model: Path) -> None:
    (trained_model / "metrics.json").unlink()
    assert restore() == ["gru"]
    assert "best_test_perplexity" not in only_run().data.metrics
    write_metrics(trained_model)
    write_weights(trained_model)
    assert restore() == ["gru"]
    assert restore() == []
    assert {"history.csv", "metrics.json", "model.safetensors"} <= artifacts(only_run())
    assert only_run().data.metrics["best_test_perplexity"] == 81.5


def test_an_earlier_run_gets_the_figures_under_their_current_names(trained_model: Path) -> None:
    (trained_model / "metrics.json").unlink()
    restore()
    store().log_metric(only_run().info.run_id, "test_perplexity", 81.5)
    write_metrics(trained_model)
    assert restore() == ["gru"]
    assert only_run().data.metrics["best_test_perplexity"] == only_run().data.metrics["test_perplexity"]


def test_the_documented_code_gives_the_table_of_all_runs(trained_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restore()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_address())
    (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/mlflow.md").read_text(), re.DOTALL)
    *before, table = lines.strip().splitlines()
    names: dict[str, Any] = {}
    exec("\n".join(before), names)
    (row,) = eval(table, names).to_dict("records")
    best = {"train_perplexity": 70.0, "valid_perplexity": 80.0, "test_perplexity": 81.5, "epoch": 2.0}
    assert row == {"tags.model": "gru"} | {f"metrics.best_{name}": value for name, value in best.items()}


def test_weights_are_registered_without_their_corpus_if_they_have_its_fingerprint(trained_model: Path) -> None:
    write_weights(trained_model)
    restore()
    assert not store().search_model_versions()
    write_weights(trained_model, data_sha256="da7a")
    restore()
    (version,) = store().search_model_versions()
    assert (version.name, version.tags["data_sha256"]) == ("ptb-gru", "da7a")


def test_weights_of_another_corpus_than_the_local_one_are_not_registered(trained_model: Path) -> None:
    write_corpus({split: np.array([1, 2, 0] * 200, np.uint16) for split in SPLITS}, ["<eos>", "a", "b"])
    write_weights(trained_model, data_sha256="da7a")
    restore()
    assert not store().search_model_versions()


def test_a_partly_uploaded_file_is_uploaded_again(trained_model: Path) -> None:
    restore()
    (copy,) = Path("mlruns").rglob("history.csv")
    content = copy.read_bytes()
    copy.write_bytes(content[:50])
    assert restore() == ["gru"]
    assert copy.read_bytes() == content


def test_settings_are_those_of_the_training_run_not_of_params_yaml(trained_model: Path) -> None:
    write_weights(trained_model, dropout=0.3)
    restore()
    run = only_run()
    assert run.data.params["dropout"] == "0.3"
    assert run.data.tags["fingerprint"] == "f1a9"


def test_settings_in_dvc_lock_take_precedence(trained_model: Path) -> None:
    lock(trained_model, dropout=0.4)
    write_weights(trained_model, dropout=0.3)  # not those in dvc.lock
    restore()
    run = only_run()
    assert run.data.params["dropout"] == "0.4"
    assert "fingerprint" not in run.data.tags
    assert artifacts(run) == {"history.csv", "metrics.json", "curve.png"}


def test_a_checkpoint_is_deleted_once_dvc_has_recorded_its_training_run(trained_model: Path) -> None:
    write_weights(trained_model)
    checkpoint = Path(".checkpoints/gru-f1a9.pt")
    checkpoint.parent.mkdir()
    checkpoint.touch()
    restore()
    assert checkpoint.exists()
    lock(trained_model)
    restore()
    assert not checkpoint.exists()


def test_final_figures_of_an_earlier_training_run_are_left_out(trained_model: Path) -> None:
    write_metrics(trained_model, valid=79.0)
    restore()
    assert "best_test_perplexity" not in only_run().data.metrics


def test_an_unfinished_training_run_is_not_restored(trained_model: Path) -> None:
    write_history(trained_model / "history.csv", HISTORY[:2])
    assert restore() == []
    assert not runs()


def test_a_running_training_run_is_left_alone(trained_model: Path, capsys: pytest.CaptureFixture) -> None:
    Path(".checkpoints").mkdir()
    with FileLock(".checkpoints/gru-0123456789abcdef.lock"):
        assert restore() == []
    assert "gru is being trained: left alone" in capsys.readouterr().out
    assert not runs()
    assert restore() == ["gru"]


def test_a_damaged_file_affects_only_its_model(trained_model: Path, capsys: pytest.CaptureFixture) -> None:
    for name, damaged in (("a", "history.csv"), ("b", "model.safetensors")):
        shutil.copytree(trained_model, trained_model.parent / name)
        (trained_model.parent / name / damaged).write_bytes(b"not what it was")
    (trained_model.parent / "c/history.csv").mkdir(parents=True)
    assert restore() == ["gru"]
    output = capsys.readouterr().err
    assert "c is left out: [Errno 21] Is a directory: 'results/models/c/history.csv'" in output
    assert "a is left out: results/models/a/history.csv, line 1" in output
    assert "b is left out: results/models/b/model.safetensors is not a complete model" in output


@pytest.mark.parametrize("content", ["", "stages: [", "stages:\n  <<<<<<< HEAD\n", "- 1"])
def test_a_damaged_dvc_lock_is_an_error_in_one_line(content: str) -> None:
    Path("dvc.lock").write_text(content)
    with pytest.raises(UserError, match=r"dvc\.lock is damaged"):
        restore()


def test_without_results_nothing_is_restored_but_the_store_is_created(tmp_path: Path) -> None:
    shutil.rmtree("results")
    (tmp_path / "mlflow.db").unlink()
    command = [sys.executable, "-m", "pipeline.restore"]
    result = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    assert result.stdout + result.stderr == "MLflow: nothing to restore\n"
    assert (tmp_path / "mlflow.db").exists()

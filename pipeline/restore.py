"""Bring MLflow up to date with every finished training in `results/models`.

What DVC or git restored ran elsewhere or before; what ended while the tracking server was down never reached it. MLflow
gets both from `history.csv` and `metrics.json`, and from the weights where they are at hand: nothing else is needed, so
a fresh clone will do. A run that has to be made carries the times of its training and the tag `restored`. A training
that goes on at this moment is left alone.
"""

import argparse
import hashlib
import math
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import SafetensorError, safe_open

from pipeline.console import UserError, run, say
from pipeline.files import MODELS, PARAMS, project_root
from pipeline.history import best_epoch, read_history
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings, Strict
from pipeline.mlflow_store import prepare_store
from pipeline.params import Params, load_params, parse_params
from pipeline.results import Metrics
from pipeline.tracking import RunFacts, publish_finished

LOCK = Path("dvc.lock")
SAME_WEIGHTS = 1e-4  # how far the same weights' perplexity may differ between two devices


class LockedOutput(BaseModel):
    path: Path
    md5: str | None = None


class LockedStage(BaseModel):
    """A stage in dvc.lock: what it ran on and what it made, as far as it matters here."""

    params: dict[str, dict[str, Any]] = {}
    outs: list[LockedOutput] = []


class Lock(BaseModel):
    stages: dict[str, LockedStage]


class Description(Strict):
    """What `save_weights` notes beside the weights."""

    settings: Settings
    vocabulary: list[str]
    fingerprint: str


def restore() -> list[str]:
    """The models of which MLflow lacked something. Raises UserError when it cannot be written to."""
    prepare_store()
    params, stages = load_params(), read_lock()
    restored = []
    for history_file in sorted(MODELS.glob("*/history.csv")):
        name = history_file.parent.name
        if is_training(name):
            say(f"{name} is being trained: left alone")
            continue
        try:
            facts, history, files = find_training(name, stages.get(f"train@{name}", LockedStage()), params)
        except UserError as error:
            say(f"warning: {name} is left out: {error}")
            continue
        if history[-1].epoch != facts.settings.epochs:
            continue  # interrupted: it is published when it goes on
        _, lacked = publish_finished(facts, history, files, read_metrics(name, history))
        if lacked:
            restored.append(name)
    return restored


def find_training(name: str, stage: LockedStage, params: Params) -> tuple[RunFacts, list[EpochRecord], list[Path]]:
    """What is known of a model's training, its epochs, and the files that belong to it. Raises UserError.

    Files that are as dvc.lock has them were trained with the settings there. Otherwise the training ran without DVC,
    and its weights name its settings, or failing these params.yaml.
    """
    history_file, weights_file = MODELS / name / "history.csv", MODELS / name / "model.safetensors"
    history = read_history(history_file)
    files = [file for file in (history_file, weights_file) if file.exists()]
    digests = {out.path: out.md5 for out in stage.outs}
    locked = [file for file in files if md5(file) == digests.get(file)]
    if history_file in locked:
        files = locked
    weights = read_description(weights_file) if weights_file in files else None
    if history_file in locked:
        settings = locked_settings(name, stage, params)
    else:
        settings = weights.settings if weights else params.model(name)
    return RunFacts(name, weights.fingerprint if weights else None, settings), history, files


def read_lock() -> dict[str, LockedStage]:
    """The stages that DVC has run. Raises UserError when dvc.lock is damaged."""
    try:
        return Lock.model_validate(YAML(typ="safe").load(LOCK.read_text(encoding="utf-8"))).stages
    except FileNotFoundError:
        return {}
    except (YAMLError, UnicodeDecodeError, ValidationError):
        raise UserError(f"{LOCK} is damaged: restore it with git, or delete it and run `dvc repro`") from None


def locked_settings(name: str, stage: LockedStage, params: Params) -> Settings:
    """The settings that a model was trained with, as dvc.lock has them. Raises UserError."""
    try:
        values = stage.params[PARAMS.name]
        sections = {"train": values["train"], "models": {name: values[f"models.{name}"]}}
    except KeyError:
        raise UserError(f"{LOCK} does not name its settings: run `dvc repro train@{name}`") from None
    return parse_params(params.model_dump() | sections, LOCK).model(name)


def read_description(path: Path) -> Description:
    """Read it without PyTorch, which takes seconds to import. Raises UserError."""
    try:
        with safe_open(path, framework="np") as file:
            return Description.model_validate_json(file.metadata()["model"])
    except (SafetensorError, ValidationError, KeyError, TypeError):
        raise UserError(f"{path} is not a whole model of this project: run `dvc checkout {path}`") from None


def read_metrics(name: str, history: list[EpochRecord]) -> dict[str, float] | None:
    """The final figures, or None where the model has none or only those of a training before this one."""
    try:
        metrics = Metrics.model_validate_json((MODELS / name / "metrics.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    best = best_epoch(history)
    same = math.isclose(metrics.valid_perplexity, best.valid_perplexity, rel_tol=SAME_WEIGHTS)
    return metrics.model_dump(exclude_none=True) if metrics.best_epoch == best.epoch and same else None


def is_training(name: str) -> bool:
    """Whether a process holds one of the model's checkpoints."""
    for path in (project_root() / ".checkpoints").glob(f"{name}-*.lock"):
        try:
            with FileLock(path, blocking=False):
                pass
        except Timeout:
            return True
    return False


def md5(path: Path) -> str:
    """The digest by which DVC knows a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.restore", description=__doc__).parse_args()
    restored = restore()
    say(f"MLflow: restored {', '.join(restored)}" if restored else "MLflow: nothing to restore")


if __name__ == "__main__":
    run(main)

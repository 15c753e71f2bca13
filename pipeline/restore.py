"""Bring MLflow up to date with every finished training run in `results/models`.

What DVC or git restored was run elsewhere or earlier; what ended while the tracking server was down never reached it.
MLflow gets both from `history.csv` and `metrics.json`, and from the weights where they exist: nothing else is needed,
so a fresh clone will do. A run that has to be created gets the original times of its training and the tag `restored`. A
model that is being trained at this moment is left alone.
"""

import argparse
from pathlib import Path

from pipeline.artifacts.checkpoint import checkpoint_path, is_being_trained, release, training_id
from pipeline.artifacts.dvc_lock import LockedStage, read_lock
from pipeline.artifacts.history import history_path, read_history
from pipeline.artifacts.metrics import mismatch, read_metrics
from pipeline.artifacts.weights import read_description, weights_path
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.project.console import UserError, run, say
from pipeline.project.files import MODELS
from pipeline.project.params import load_params
from pipeline.project.schema import Params
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import AGAIN
from pipeline.tracking.finished import publish_finished
from pipeline.tracking.store import prepare_store


def restore() -> list[str]:
    """The models for which MLflow lacked something. Raises UserError if it cannot be written to."""
    prepare_store(AGAIN)
    params, stages = load_params(), read_lock()
    restored = []
    for history_file in sorted(MODELS.glob("*/history.csv")):
        name = history_file.parent.name
        if is_being_trained(name):
            say(f"{name} is being trained: left alone")
            continue
        try:
            facts, history, files = find_training(name, stages.get(f"train@{name}", LockedStage()), params)
        except UserError as error:
            say(f"warning: {name} is left out: {error}")
            continue
        if not is_whole(history, facts.settings):
            continue  # interrupted: it is published when it is resumed
        _, lacked = publish_finished(facts, history, files, final_figures(name, history))
        release(name)
        if lacked:
            restored.append(name)
    return restored


def find_training(name: str, stage: LockedStage, params: Params) -> tuple[RunFacts, list[EpochRecord], list[Path]]:
    """What is known about a model's training run, its epochs, and the files that belong to it. Raises UserError.

    Files that match dvc.lock were trained with the settings recorded there. Otherwise the training run was started
    without DVC, and its settings are those stored with its weights or, without weights, those in params.yaml.
    """
    history_file, weights_file = history_path(name), weights_path(name)
    history = read_history(history_file)
    files = [file for file in (history_file, weights_file) if file.exists()]
    locked = [file for file in files if stage.made(file)]
    if history_file in locked:
        files = locked
    weights = read_description(weights_file) if weights_file in files else None
    if history_file in locked:
        settings = stage.settings(name)
    elif weights:
        settings = weights.settings
    else:
        settings = params.model(name)
    identity = weights.fingerprint if weights else None
    known = training_id(checkpoint_path(name, identity)) if identity else None
    return RunFacts(name, identity, settings, remedy=AGAIN, training_id=known), history, files


def final_figures(name: str, history: list[EpochRecord]) -> dict[str, float] | None:
    """The final figures, or None if the model has none or only those of an earlier training run."""
    try:
        metrics = read_metrics(name)
    except UserError:
        return None
    return None if mismatch(metrics, history) else metrics.figures()


def main() -> None:
    argparse.ArgumentParser(prog="python -m pipeline.restore", description=__doc__).parse_args()
    restored = restore()
    say(f"MLflow: restored {', '.join(restored)}" if restored else "MLflow: nothing to restore")


if __name__ == "__main__":
    run(main)

"""Which MLflow run belongs to a training run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.lm.record import EpochRecord
from pipeline.tracking.facts import RunFacts

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.store.entities import PagedList


def find_run(
    client: "MlflowClient", experiment_id: str, facts: RunFacts, history: Sequence[EpochRecord]
) -> "Run | None":
    """The MLflow run of exactly this training run, not of another one with the same settings, perhaps alive elsewhere.

    It ended with this history, has the same id, or began with these epochs, with exactly the same seconds. A teacher's
    may have been begun under another name, as another model's.
    """

    def search(condition: str) -> "PagedList[Run]":
        return client.search_runs([experiment_id], condition)

    if history and (ended := search(f"tags.history = '{digest_of(history)}'")):
        return ended[0]
    epochs = [(record.epoch, milliseconds(record.finished_at), record.seconds) for record in history]
    for run in search(f"tags.training_id = '{facts.training_id}'") if facts.training_id else ():
        if (written := epochs_of(client, run)) == epochs[: len(written)]:
            return run
    unfinished = f"tags.model = '{facts.model}' and attributes.status != 'FINISHED'"
    for run in search(unfinished) if history else ():
        if (written := epochs_of(client, run)) and written == epochs[: len(written)]:
            return run
    return None


def epochs_of(client: "MlflowClient", run: "Run") -> list[tuple[int, int, float]]:
    """A run's epochs: when each finished, in milliseconds, and how many seconds it took."""
    points = client.get_metric_history(run.info.run_id, "speed/seconds_per_epoch")
    return sorted((point.step, point.timestamp, point.value) for point in points)


def digest_of(history: Sequence[EpochRecord]) -> str:
    """Distinguishes training runs with the same settings: a digest of the epochs, times included."""
    return hashlib.sha256(json.dumps([asdict(record) for record in history]).encode()).hexdigest()[:16]


def milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)

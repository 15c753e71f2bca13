"""The MLflow run of a training run: found or created, with everything but its epochs and its results."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

from pipeline.artifacts.teachers import student_of
from pipeline.lm.record import EpochRecord
from pipeline.project.files import PARAMS, PROCESSED, SPLITS
from pipeline.settings.overlay import flattened
from pipeline.tracking import origin
from pipeline.tracking.appearance import color_for, run_name
from pipeline.tracking.facts import RunFacts

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

COLOR = "mlflow.runColor"
TEACHER_OF = "teacher_of"
PARENT = "mlflow.parentRunId"
RUNS_TOLD_APART = 20  # by their colours
LONGEST_DIGEST = 36  # that MLflow accepts


class RunDescription:
    """What MLflow knows about a run from its start on; created when its training starts.

    live: training is in progress in this process; otherwise a run that has to be created is marked as restored and
        gets the original times of the training run
    """

    def __init__(self, facts: RunFacts, *, live: bool) -> None:
        self._facts = facts
        self._started = round(time.time() * 1000)
        self._origin = origin.circumstances() if live else {"restored": "true"}
        identity = {
            "model": facts.model,
            "corpus": facts.corpus_name,
            "fingerprint": facts.fingerprint,
            "training_id": facts.training_id,
            "data_sha256": facts.data_sha256,
            TEACHER_OF: student_of(facts.model),
        }
        known = {name: value for name, value in identity.items() if value}
        self._tags = known | facts.tags | (origin.local_data() if facts.corpus else {})
        self._texts = {PARAMS.name: facts.params or ""}
        if live:
            self._texts |= {"uncommitted.diff": origin.uncommitted_changes(), "packages.txt": origin.packages()}

    def open(self, client: "MlflowClient", experiment_id: str, history: Sequence[EpochRecord]) -> "Run":
        """The run, created if there is none, with this description completed."""
        run = _find(client, experiment_id, self._facts, history) or self._create(client, experiment_id, history)
        self._complete(client, run)
        return run

    def _create(self, client: "MlflowClient", experiment_id: str, history: Sequence[EpochRecord]) -> "Run":
        """A run with the start time of its training, even if MLflow answers later."""
        facts = self._facts
        start = milliseconds(history[0].finished_at) - round(history[0].seconds * 1000) if history else self._started
        name = run_name(facts.model, facts.settings, facts.tags.get("recipe"))
        return client.create_run(experiment_id, start, self._tags | self._origin, name)

    def _complete(self, client: "MlflowClient", run: "Run") -> None:
        from mlflow.entities import Param, RunTag

        run_id = run.info.run_id
        settings = {} if run.data.params else flattened(self._facts.settings)
        tags = {name: value for name, value in self._tags.items() if name not in run.data.tags}
        if COLOR not in run.data.tags:  # different from those of the latest runs
            others = client.search_runs([run.info.experiment_id], max_results=RUNS_TOLD_APART)
            tags[COLOR] = color_for(self._facts.model, [other.data.tags.get(COLOR, "") for other in others])
        params = [Param(name, str(value)) for name, value in settings.items()]
        client.log_batch(run_id, params=params, tags=[RunTag(name, value) for name, value in tags.items()])
        present = {file.path for file in client.list_artifacts(run_id)}
        for name, text in self._texts.items():
            if text and name not in present:
                client.log_text(run_id, text, name)
        if not (run.inputs and run.inputs.dataset_inputs):
            self._log_dataset(client, run_id)
        _link_teachers(client, run)

    def _log_dataset(self, client: "MlflowClient", run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if not (sizes := self._facts.corpus_sizes):
            return
        tokens = {split: getattr(sizes, f"{split}_tokens") for split in SPLITS}
        dataset = Dataset(
            name=self._facts.corpus_name,
            digest=(self._tags.get(origin.IDS_MD5) or self._facts.data_sha256 or "unknown")[:LONGEST_DIGEST],
            source_type="local",
            source=json.dumps({"uri": PROCESSED.as_posix()}),
            profile=json.dumps({"tokens": tokens, "vocabulary_size": sizes.vocabulary_size}),
        )
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def _find(client: "MlflowClient", experiment_id: str, facts: RunFacts, history: Sequence[EpochRecord]) -> "Run | None":
    """The MLflow run of this very training run, not of another one with the same settings, which may still be training.

    It ended with this history, has the same id, or began with these epochs and exactly the same times. A teacher's run
    may have been started under another name, as another model's teacher.
    """
    conditions = [f"tags.training_id = '{facts.training_id}'"] if facts.training_id else []
    if history:
        if ended := client.search_runs([experiment_id], f"tags.history = '{digest_of(history)}'"):
            return ended[0]
        conditions.append(f"tags.model = '{facts.model}' and attributes.status != 'FINISHED'")
    epochs = [(record.epoch, milliseconds(record.finished_at), record.seconds) for record in history]
    for condition in conditions:
        for run in client.search_runs([experiment_id], condition):
            written = epochs_of(client, run)
            if written == epochs[: len(written)] and (written or "tags.training_id" in condition):
                return run
    return None


def _link_teachers(client: "MlflowClient", run: "Run") -> None:
    """Put a teacher's run under its student's newest, and under a student's run its teachers' that have no parent yet.

    Which of them MLflow gets first depends on whether they were trained now or restored.
    """
    if "sweep" in run.data.tags:
        return
    model, experiments = run.data.tags["model"], [run.info.experiment_id]
    if (student := student_of(model)) and PARENT not in run.data.tags:
        for found in client.search_runs(experiments, f"tags.model = '{student}' and tags.sweep IS NULL", max_results=1):
            client.set_tag(run.info.run_id, PARENT, found.info.run_id)
    for teacher in client.search_runs(experiments, f"tags.{TEACHER_OF} = '{model}' and tags.sweep IS NULL"):
        if PARENT not in teacher.data.tags:
            client.set_tag(teacher.info.run_id, PARENT, run.info.run_id)


def epochs_of(client: "MlflowClient", run: "Run") -> list[tuple[int, int, float]]:
    """A run's epochs: when each finished, in milliseconds, and how many seconds it took."""
    points = client.get_metric_history(run.info.run_id, "speed/seconds_per_epoch")
    return sorted((point.step, point.timestamp, point.value) for point in points)


def digest_of(history: Sequence[EpochRecord]) -> str:
    """A digest of the epochs, times included: it distinguishes training runs with the same settings."""
    return hashlib.sha256(json.dumps([asdict(record) for record in history]).encode()).hexdigest()[:16]


def milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)

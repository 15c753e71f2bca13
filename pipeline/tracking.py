"""Trainings as runs in MLflow, for watching and comparing.

Beside this module, only `mlflow_store`, `registry` and the model that it registers, `served_model`, import MLflow.

The files in `results/` are the truth and MLflow is a view of them. Whatever is written here can be written again: a
run is found by its tags and given only what it lacks. A tracking server that is slow or down never stops a training;
what it missed is written at the next chance: the next epoch, the evaluation, or `pipeline.restore`.
"""

import getpass
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.console import UserError, say
from pipeline.corpus import Corpus
from pipeline.files import PROCESSED, SPLITS, project_root
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings
from pipeline.mlflow_store import REMEDY, behind, connect

GRACE_SECONDS = 30.0  # how long the end of a training waits for a slow server
METRICS_A_REQUEST = 900  # MLflow takes at most 1,000

# Metrics that share the part before the slash share a section of charts in MLflow's page.
EPOCH_METRICS = {
    "perplexity/train": "train_perplexity",
    "perplexity/valid": "valid_perplexity",
    "optimization/learning_rate": "learning_rate",
    "optimization/grad_norm": "grad_norm",
    "speed/tokens_per_second": "tokens_per_second",
    "speed/seconds_per_epoch": "seconds",
}


@dataclass(frozen=True)
class RunFacts:
    """What is known of a training beside its epochs.

    fingerprint: as `checkpoint.fingerprint` gives it; None where only the history is at hand, for it follows from the
        corpus and the code of the training, too
    corpus: None where it is not at hand
    remedy: what writes later whatever MLflow lacks of the run
    """

    model: str
    fingerprint: str | None
    settings: Settings
    corpus: Corpus | None = None
    tags: dict[str, str] = field(default_factory=dict)
    remedy: str = REMEDY


class Publisher:
    """Brings the MLflow run of one training up to date with it.

    live: the training goes on in this process; otherwise a run that has to be made is marked as restored, and carries
    the times of the training.
    """

    def __init__(self, facts: RunFacts, *, live: bool = False) -> None:
        self.facts = facts
        self.live = live
        self._client: Any = None
        self._run: Any = None  # as it was when it was opened
        self._epochs_written = 0
        self._monitor: Any = None

    def publish(
        self,
        history: Sequence[EpochRecord],
        status: str = "RUNNING",
        *,
        failure: str = "",
        tags: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> tuple[str, bool]:
        """Write what the run lacks: epochs, files, final metrics, status. Returns its id, and whether it lacked any.

        tags: to be set at the end, as the status is

        Raises whatever MLflow raises; the next call then looks again at what the run has, for a request that failed
        may have arrived all the same.
        """
        try:
            if self._run is None:
                self._open(history)
            lacked = [
                self._write_epochs(history),
                self._write_files(files),
                self._write_final(metrics or {}),
                status != "RUNNING" and self._end(history, status, failure, tags or {}),
            ]
        except Exception:
            self._run = None
            self._stop_monitor()
            raise
        return self._run.info.run_id, any(lacked)

    def _open(self, history: Sequence[EpochRecord]) -> None:
        """Find the run of this training, or create it, and see what it has."""
        client, experiment_id = connect()
        run = _find_run(client, experiment_id, self.facts, history) or self._create(client, experiment_id, history)
        self._describe(client, run)
        self._epochs_written = len(_epochs_of(client, run))
        if self.live:
            client.update_run(run.info.run_id, "RUNNING")
            if "failure" in run.data.tags:
                client.delete_tag(run.info.run_id, "failure")
            self._monitor = _start_monitor(run.info.run_id, client)
        self._client, self._run = client, run

    def _create(self, client: Any, experiment_id: str, history: Sequence[EpochRecord]) -> Any:
        facts = self.facts
        tags = {"model": facts.model}
        if facts.fingerprint:
            tags["fingerprint"] = facts.fingerprint
        if facts.corpus:
            tags["data_sha256"] = facts.corpus.fingerprint
        tags |= facts.tags | circumstances() if self.live else {"restored": "true"} | facts.tags
        start = None if self.live else _milliseconds(history[0].finished_at) - round(history[0].seconds * 1000)
        return client.create_run(experiment_id, start, tags, facts.model)

    def _describe(self, client: Any, run: Any) -> None:
        """Name the settings and the corpus, if the run does not."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        if not run.data.params:
            settings = self.facts.settings.flat().items()
            client.log_batch(run.info.run_id, params=[Param(name, str(value)) for name, value in settings])
        if (corpus := self.facts.corpus) and not (run.inputs and run.inputs.dataset_inputs):
            sizes = {split: len(getattr(corpus, split)) for split in SPLITS}
            dataset = Dataset(
                name="corpus",
                digest=corpus.fingerprint[:36],
                source_type="local",
                source=json.dumps({"uri": PROCESSED.as_posix()}),
                profile=json.dumps({"tokens": sizes, "vocabulary_size": len(corpus.vocabulary)}),
            )
            context = InputTag("mlflow.data.context", "training")
            client.log_inputs(run.info.run_id, [DatasetInput(dataset, [context])])

    def _write_epochs(self, history: Sequence[EpochRecord]) -> bool:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, getattr(record, attribute), _milliseconds(record.finished_at), record.epoch)
            for record in history[self._epochs_written :]
            for name, attribute in EPOCH_METRICS.items()
        ]
        for start in range(0, len(metrics), METRICS_A_REQUEST):
            self._client.log_batch(self._run.info.run_id, metrics=metrics[start : start + METRICS_A_REQUEST])
        self._epochs_written = max(self._epochs_written, len(history))
        return bool(metrics)

    def _write_files(self, files: Sequence[Path]) -> bool:
        run_id = self._run.info.run_id
        present = {file.path: file.file_size for file in self._client.list_artifacts(run_id)} if files else {}
        lacking = [path for path in files if present.get(path.name) != path.stat().st_size]
        for path in lacking:
            self._client.log_artifact(run_id, str(path))
        return bool(lacking)

    def _write_final(self, metrics: Mapping[str, float]) -> bool:
        run_id, present = self._run.info.run_id, self._run.data.metrics
        if all(present.get(f"final/{name}") == value for name, value in metrics.items()):
            return False
        self._client.log_dict(run_id, dict(metrics), "metrics.json")
        for name, value in metrics.items():
            self._client.log_metric(run_id, f"final/{name}", value)
        return True

    def _end(self, history: Sequence[EpochRecord], status: str, failure: str, tags: Mapping[str, str]) -> bool:
        self._stop_monitor()
        run_id, info, history_id = self._run.info.run_id, self._run.info, _history_id(history)
        if not self.live and info.status == status and self._run.data.tags.get("history") == history_id:
            return False
        for name, value in (dict(tags) | ({"failure": failure} if failure else {})).items():
            self._client.set_tag(run_id, name, value)
        if status == "FINISHED":
            self._client.set_tag(run_id, "history", history_id)
        self._client.set_terminated(run_id, status, None if self.live else _milliseconds(history[-1].finished_at))
        return True

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


class LiveRun:
    """A training's run in MLflow, written by a thread of its own so that no server can hold the training up."""

    def __init__(self, facts: RunFacts, history: Sequence[EpochRecord] = ()) -> None:
        """history: the epochs of a training that goes on, by which its run is known."""
        self._publisher = Publisher(facts, live=True)
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._behind = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        self.publish(history)

    def publish(self, history: Sequence[EpochRecord]) -> None:
        """Bring the run up to the newest epoch; returns at once."""
        self._history = tuple(history)
        self._reports.put({"history": self._history, "status": "RUNNING"})

    def end(
        self, status: str, *, failure: str = "", tags: Mapping[str, str] | None = None, files: Sequence[Path] = ()
    ) -> None:
        """Write all that is left and end the run; waits for a slow server, but not for ever."""
        end = {"status": status, "failure": failure, "tags": tags, "files": files}
        self._reports.put({"history": self._history} | end)
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive() or self._behind:
            say(f"warning: MLflow is behind at the end of this training: {self._publisher.facts.remedy}")

    def _work(self) -> None:
        while True:
            report = self._newest_report()
            try:
                self._publisher.publish(**report)
                if self._behind:
                    say("MLflow is up to date again")
                self._behind = False
            except Exception as error:  # whatever goes wrong in MLflow, the training goes on
                if not self._behind:
                    say(f"warning: {behind(error, self._publisher.facts.remedy)}")
                self._behind = True
            if report["status"] != "RUNNING":
                return

    def _newest_report(self) -> dict[str, Any]:
        """Each report holds all that those before it held, so those that a slow server kept waiting are left out."""
        report = self._reports.get()
        while not self._reports.empty():
            report = self._reports.get()
        return report


@contextmanager
def live_run(facts: RunFacts, history: Sequence[EpochRecord] = ()) -> Iterator[LiveRun]:
    """A run that ends as KILLED when interrupted, and as FAILED with the reason on an error; its user ends it well."""
    run = LiveRun(facts, history)
    try:
        yield run
    except KeyboardInterrupt:
        run.end("KILLED", failure="interrupted")
        raise
    except BaseException as error:
        run.end("FAILED", failure=f"{type(error).__name__}: {error}")
        raise


def publish_finished(
    facts: RunFacts, history: Sequence[EpochRecord], files: Sequence[Path], metrics: Mapping[str, float] | None
) -> tuple[str, bool]:
    """Bring MLflow up to date with a finished training, in one process at a time.

    Returns the run's id, and whether it lacked anything. Raises UserError when MLflow cannot be written to.
    """
    try:
        with FileLock(project_root() / f".mlflow.{facts.model}.lock"):
            return Publisher(facts).publish(history, "FINISHED", files=files, metrics=metrics)
    except Exception as error:
        raise UserError(behind(error)) from None


def publish_evaluation(
    facts: RunFacts, history: Sequence[EpochRecord], files: Sequence[Path], metrics: Mapping[str, float]
) -> str | None:
    """Add the final figures to a training's run, and whatever else MLflow lacks of it.

    Returns the run's id, or None when MLflow could not be written to.
    """
    try:
        run_id, _ = publish_finished(facts, history, files, metrics)
        return run_id
    except UserError as error:  # the figures are in the files
        say(f"warning: {error}")
        return None


def _find_run(client: Any, experiment_id: str, facts: RunFacts, history: Sequence[EpochRecord]) -> Any | None:
    """The run of this very training: the one that ended with this history, or one that stopped on the way to it."""
    finished = f"tags.history = '{_history_id(history)}' and tags.model = '{facts.model}'"
    for run in client.search_runs([experiment_id], finished):
        return run
    if facts.fingerprint is None:
        return None
    unfinished = f"tags.fingerprint = '{facts.fingerprint}' and attributes.status != 'FINISHED'"
    epochs = [(record.epoch, _milliseconds(record.finished_at)) for record in history]
    for run in client.search_runs([experiment_id], unfinished):
        written = _epochs_of(client, run)
        if written == epochs[: len(written)]:
            return run
    return None


def _epochs_of(client: Any, run: Any) -> list[tuple[int, int]]:
    """The epochs that a run has, and when each finished, in milliseconds."""
    points = client.get_metric_history(run.info.run_id, next(iter(EPOCH_METRICS)))
    return sorted((point.step, point.timestamp) for point in points)


def _start_monitor(run_id: str, client: Any) -> Any:
    """Processor, memory and network use, every ten seconds, as MLflow's own system metrics."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
    monitor.start()
    return monitor


def circumstances() -> dict[str, str]:
    """Who ran what, from which commit, in which DVC stage and experiment."""
    commit = _git("rev-parse", "HEAD")
    tags = {
        "mlflow.user": _user(),
        "mlflow.source.name": f"python -m pipeline.{Path(sys.argv[0]).stem}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower() if commit else "",
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    return {name: value for name, value in tags.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return ""


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _history_id(history: Sequence[EpochRecord]) -> str:
    """Tells one training from another of the same settings: a digest of its epochs, times included."""
    return hashlib.sha256(json.dumps([asdict(record) for record in history]).encode()).hexdigest()[:16]


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)

"""MLflow, for watching and comparing runs.

Beside this module, only `registry` and the model that it registers, `served_model`, import MLflow.

The files in `results/` are the truth and MLflow is a view of them. Whatever is written here can be written again: a
run is found by its tags and given only what it lacks. A tracking server that is slow or down never stops a training;
what it missed is written at the next chance.
"""

import getpass
import hashlib
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.console import say
from pipeline.corpus import Corpus
from pipeline.files import project_root
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import Settings

DEFAULT_EXPERIMENT = "recurrent-lm"
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
    """What is known of a training before it starts."""

    model: str
    fingerprint: str
    settings: Settings
    corpus: Corpus
    tags: dict[str, str] = field(default_factory=dict)


class Publisher:
    """Brings the MLflow run of one training up to date with it.

    live: the training goes on in this process; otherwise a run that has to be made is marked as restored, and carries
    the times of the training.
    """

    def __init__(self, facts: RunFacts, *, live: bool = False) -> None:
        self.facts = facts
        self.live = live
        self._run_id: str | None = None
        self._epochs_written = 0
        self._monitor: Any = None

    def publish(
        self,
        history: Sequence[EpochRecord],
        status: str = "RUNNING",
        *,
        failure: str = "",
        files: Sequence[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """Write what the run lacks: epochs, files, final metrics, status. Returns its id; raises what MLflow raises."""
        client, experiment_id = connect()
        run_id = self._run_id = self._run_id or self._open(client, experiment_id, history)
        self._write_epochs(client, run_id, history)
        present = {file.path for file in client.list_artifacts(run_id)} if files else set()
        for path in files:
            if path.name not in present:
                client.log_artifact(run_id, str(path))
        if metrics:
            client.log_dict(run_id, dict(metrics), "metrics.json")
            for name, value in metrics.items():
                client.log_metric(run_id, f"final/{name}", value)
        if status != "RUNNING":
            self._end(client, run_id, history, status, failure)
        return run_id

    def _open(self, client: Any, experiment_id: str, history: Sequence[EpochRecord]) -> str:
        """Find the run of this training, or one of the same fingerprint that did not finish; or create it."""
        unfinished = f"tags.fingerprint = '{self.facts.fingerprint}' and attributes.status != 'FINISHED'"
        run_id = _find_run(client, experiment_id, f"tags.history = '{_history_id(history)}'") or _find_run(
            client, experiment_id, unfinished
        )
        if run_id is None:
            run_id = self._create(client, experiment_id, history)
        written = client.get_metric_history(run_id, next(iter(EPOCH_METRICS)))
        self._epochs_written = max((metric.step for metric in written), default=0)
        if self.live:
            client.update_run(run_id, "RUNNING")
            if "failure" in client.get_run(run_id).data.tags:
                client.delete_tag(run_id, "failure")
            self._monitor = _start_monitor(run_id, client)
        return run_id

    def _create(self, client: Any, experiment_id: str, history: Sequence[EpochRecord]) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        facts, corpus = self.facts, self.facts.corpus
        tags = {"model": facts.model, "fingerprint": facts.fingerprint, "data_sha256": corpus.fingerprint}
        tags |= facts.tags | _circumstances() if self.live else {"restored": "true"} | facts.tags
        start = None if self.live else _milliseconds(history[0].finished_at) - round(history[0].seconds * 1000)
        run_id: str = client.create_run(experiment_id, start, tags, facts.model).info.run_id
        settings = _flatten(facts.settings.model_dump())
        client.log_batch(run_id, params=[Param(key, str(value)) for key, value in settings])
        sizes = {split: len(getattr(corpus, split)) for split in ("train", "valid", "test")}
        dataset = Dataset(
            name="corpus",
            digest=corpus.fingerprint[:36],
            source_type="local",
            source=json.dumps({"uri": "data/processed"}),
            profile=json.dumps({"tokens": sizes, "vocabulary_size": len(corpus.vocabulary)}),
        )
        client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        return run_id

    def _write_epochs(self, client: Any, run_id: str, history: Sequence[EpochRecord]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, getattr(record, attribute), _milliseconds(record.finished_at), record.epoch)
            for record in history[self._epochs_written :]
            for name, attribute in EPOCH_METRICS.items()
        ]
        for start in range(0, len(metrics), METRICS_A_REQUEST):
            client.log_batch(run_id, metrics=metrics[start : start + METRICS_A_REQUEST])
        self._epochs_written = max(self._epochs_written, len(history))

    def _end(self, client: Any, run_id: str, history: Sequence[EpochRecord], status: str, failure: str) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None
        if failure:
            client.set_tag(run_id, "failure", failure)
        if status == "FINISHED":
            client.set_tag(run_id, "history", _history_id(history))
        client.set_terminated(run_id, status, None if self.live else _milliseconds(history[-1].finished_at))


class LiveRun:
    """A training's run in MLflow, written by a thread of its own so that no server can hold the training up."""

    def __init__(self, facts: RunFacts) -> None:
        self._publisher = Publisher(facts, live=True)
        self._history: Sequence[EpochRecord] = ()
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        self.publish(())

    def publish(self, history: Sequence[EpochRecord]) -> None:
        """Bring the run up to the newest epoch; returns at once."""
        self._history = tuple(history)
        self._reports.put({"history": self._history})

    def end(self, status: str, *, failure: str = "", files: Sequence[Path] = ()) -> None:
        """Write all that is left and end the run; waits for a slow server, but not for ever."""
        self._reports.put({"history": self._history, "status": status, "failure": failure, "files": files})
        self._reports.put(None)
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive():
            _warn("no answer yet")

    def _work(self) -> None:
        while report := self._reports.get():
            try:
                self._publisher.publish(**report)
            except Exception as error:  # whatever goes wrong in MLflow, the training goes on
                _warn(error)


@contextmanager
def live_run(facts: RunFacts) -> Iterator[LiveRun]:
    """A run that ends as KILLED when interrupted, and as FAILED with the reason on an error; its user ends it well."""
    run = LiveRun(facts)
    try:
        yield run
    except KeyboardInterrupt:
        run.end("KILLED", failure="interrupted")
        raise
    except BaseException as error:
        run.end("FAILED", failure=f"{type(error).__name__}: {error}")
        raise


def publish_evaluation(
    facts: RunFacts, history: Sequence[EpochRecord], files: Sequence[Path], metrics: Mapping[str, float]
) -> str | None:
    """Add the final figures to a training's run, and whatever else MLflow lacks of it.

    Returns the run's id, or None when MLflow could not be written to.
    """
    try:
        return Publisher(facts).publish(history, "FINISHED", files=files, metrics=metrics)
    except Exception as error:  # the figures are in the files
        _warn(error)
        return None


def connect() -> tuple[Any, str]:
    """MLflow's client and our experiment's id.

    The default store is made by one process at a time: several at once would corrupt a fresh database. Its places are
    absolute, because `dvc exp run --temp` works in a copy that is thrown away.
    """
    root = project_root()
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    server = os.environ.get("MLFLOW_TRACKING_URI")
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", DEFAULT_EXPERIMENT)
    with nullcontext() if server else FileLock(root / ".mlflow.lock"):
        if not server and not (root / "mlflow.db").exists():
            _create_database(root / "mlflow.db")
        client = MlflowClient(server or f"sqlite:///{root / 'mlflow.db'}")
        experiment = client.get_experiment_by_name(name)
        if experiment:
            return client, experiment.experiment_id
        return client, client.create_experiment(name, None if server else (root / "mlruns").as_uri())


def _create_database(path: Path) -> None:
    """Make the default store's tables under another name first: killed half-way, they could never be opened again."""
    from mlflow import MlflowClient

    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    partial.with_name(f"{partial.name}-journal").unlink(missing_ok=True)
    MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    os.replace(partial, path)


def _find_run(client: Any, experiment_id: str, filter_string: str) -> str | None:
    runs = client.search_runs([experiment_id], filter_string, max_results=1)
    return runs[0].info.run_id if runs else None


def _start_monitor(run_id: str, client: Any) -> Any:
    """Processor, memory and network use, every ten seconds, as MLflow's own system metrics."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
    monitor.start()
    return monitor


def _circumstances() -> dict[str, str]:
    """Who ran what, from which commit, in which DVC stage and experiment."""
    commit = _git("rev-parse", "HEAD")
    tags = {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": f"python -m pipeline.{Path(sys.argv[0]).stem}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "git_dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower() if commit else "",
        "dvc_stage": os.environ.get("DVC_STAGE", ""),
        "dvc_experiment": os.environ.get("DVC_EXP_NAME", ""),
    }
    return {name: value for name, value in tags.items() if value}


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _history_id(history: Sequence[EpochRecord]) -> str:
    """Tells one training from another of the same settings: a digest of its epochs, times included."""
    return hashlib.sha256(json.dumps([asdict(record) for record in history]).encode()).hexdigest()[:16]


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _warn(reason: object) -> None:
    lines = str(reason).splitlines() or [type(reason).__name__]
    say(f"warning: MLflow is behind: {lines[0][:200]}; the next stage writes what it lacks")

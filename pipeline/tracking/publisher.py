"""Brings MLflow's runs up to date with the files in `results/`, which are the source of truth.

Whatever is written here can be written again: a run is found by its tags, and only what is missing in it is
written. A tracking server that is slow or down never stops a training run; what it missed is written at the next
opportunity: the next epoch, the evaluation, or `pipeline.restore`.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.artifacts.dvc_lock import dvc_md5
from pipeline.artifacts.history import best_epoch, history_path
from pipeline.artifacts.metrics import worse_than_guessing
from pipeline.artifacts.weights import weights_path
from pipeline.lm.record import EpochRecord
from pipeline.project.console import warn
from pipeline.tracking.facts import RunFacts, shown
from pipeline.tracking.notes import PICTURE, describe_run
from pipeline.tracking.origin import WEIGHTS_MD5
from pipeline.tracking.runs import RunDescription, digest_of, epochs_of, milliseconds
from pipeline.tracking.store import connect

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

# On MLflow's page, metrics with the same part before the slash share a section of charts. The sections are in
# alphabetical order, with metrics without a slash last: perplexity comes first, and final figures after all curves.
EPOCH_METRICS = {
    "perplexity/train": "train_perplexity",
    "perplexity/valid": "valid_perplexity",
    "training/learning_rate": "learning_rate",
    "training/grad_norm": "grad_norm",
    "speed/tokens_per_second": "tokens_per_second",
    "speed/seconds_per_epoch": "seconds",
}


@dataclass(frozen=True)
class Report:
    """What MLflow should have of a training run: all epochs so far and, once it has ended, its status and results.

    tags: set at the end, together with the status
    metrics: the final figures
    """

    history: Sequence[EpochRecord]
    status: str = "RUNNING"
    failure: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


class Publisher:
    """Keeps the MLflow run of one training run up to date.

    live: as for `RunDescription`
    """

    def __init__(self, facts: RunFacts, *, live: bool = False) -> None:
        self._facts = facts
        self._live = live
        self._description = RunDescription(facts, live=live)
        self._client: MlflowClient
        self._run: Run | None = None  # as it was when it was opened
        self._epochs_written = 0
        self._monitor: SystemMetricsMonitor | None = None

    def publish(self, report: Report) -> tuple[str, bool]:
        """Write what is missing: epochs, files, final metrics, status. Returns the run's id, and whether anything was.

        Raises whatever MLflow raises. The next call then checks again what the run has, because a failed request may
        still have arrived.
        """
        try:
            run = self._run or self._open(report.history)
            missing = self._write_epochs(run, report.history)
            missing |= self._write_files(run, report)
            missing |= self._write_figures(run, report.metrics)
            if report.status != "RUNNING":
                missing |= self._end(run, report)
                missing |= describe_run(self._client, run.info.run_id)
        except Exception:
            self._run = None
            self.stop_monitor()
            raise
        return run.info.run_id, missing

    def _start_monitor(self, client: "MlflowClient", run_id: str) -> None:
        """Processor, memory and network use, every ten seconds, as MLflow's own system metrics."""
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
        self._monitor.start()

    def stop_monitor(self, *, ended: bool = False) -> None:
        """ended: the training run has ended, and gets one last sample, as a short one would have none."""
        if monitor := self._monitor:
            monitor.finish()
            if ended:
                for part in monitor.monitors:
                    part.clear_metrics()
                monitor.collect_metrics()
                monitor.publish_metrics(monitor.aggregate_metrics())
                monitor.mlflow_logger.flush()
            self._monitor = None

    def _open(self, history: Sequence[EpochRecord]) -> "Run":
        client, experiment_id = connect()
        run = self._description.open(client, experiment_id, history)
        run_id = run.info.run_id
        if self._live:
            client.update_run(run_id, "RUNNING")
            if "failure" in run.data.tags:
                client.delete_tag(run_id, "failure")
            self._start_monitor(client, run_id)
        self._epochs_written = len(epochs_of(client, run))
        self._client, self._run = client, client.get_run(run_id)
        return self._run

    def _write_epochs(self, run: "Run", history: Sequence[EpochRecord]) -> bool:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, getattr(record, attribute), milliseconds(record.finished_at), record.epoch)
            for record in history[self._epochs_written :]
            for name, attribute in EPOCH_METRICS.items()
        ]
        if metrics:
            self._client.log_batch(run.info.run_id, metrics=metrics)
        self._epochs_written = max(self._epochs_written, len(history))
        return bool(metrics)

    def _write_files(self, run: "Run", report: Report) -> bool:
        files, run_id = report.files, run.info.run_id
        present = {file.path: file.file_size for file in self._client.list_artifacts(run_id)} if files else {}
        missing = [path for path in files if present.get(path.name) != path.stat().st_size]
        for path in missing:
            self._client.log_artifact(run_id, str(path))
        if history_path(self._facts.model) in files and PICTURE not in present:
            self._draw(run, report.history)
        return bool(missing)

    def _draw(self, run: "Run", history: Sequence[EpochRecord]) -> None:
        """Add a picture of the perplexities, or warn that it cannot be drawn."""
        with ExitStack() as stack:
            try:
                from pipeline.reporting.curves import curve  # matplotlib takes a second to import

                path = Path(stack.enter_context(TemporaryDirectory())) / PICTURE
                curve(history, path)
            except Exception as error:
                warn(f"MLflow gets no picture of this training run: {error}")
                return
            self._client.log_artifact(run.info.run_id, str(path))

    def _write_figures(self, run: "Run", metrics: Mapping[str, float]) -> bool:
        run_id, present = run.info.run_id, run.data.metrics
        if all(present.get(shown(name)) == value for name, value in metrics.items()):
            return False
        self._client.log_dict(run_id, dict(metrics), "metrics.json")
        for name, value in metrics.items():
            self._client.log_metric(run_id, shown(name), value)
        return True

    def _end(self, run: "Run", report: Report) -> bool:
        """Write how the training run ended, and remove a failure from before it was resumed."""
        self.stop_monitor(ended=True)
        run_id, present = run.info.run_id, run.data.tags
        missing = {name: value for name, value in self._tags_of_end(report).items() if present.get(name) != value}
        resumed = "failure" in present and not report.failure
        if run.info.status == report.status and not missing and not resumed:
            return False
        for name, value in missing.items():
            self._client.set_tag(run_id, name, value)
        if resumed:
            self._client.delete_tag(run_id, "failure")
        ended = None if self._live else milliseconds(report.history[-1].finished_at)
        self._client.set_terminated(run_id, report.status, ended)
        return True

    def _tags_of_end(self, report: Report) -> dict[str, str]:
        history, sizes, weights = report.history, self._facts.corpus_sizes, weights_path(self._facts.model)
        best = vars(best_epoch(history)) if history else {}
        nonsense = worse_than_guessing(best | dict(report.metrics), sizes.vocabulary_size) if sizes else ""
        tags = {
            "failure": report.failure,
            "history": digest_of(history) if report.status == "FINISHED" else "",
            "warning": nonsense,
            WEIGHTS_MD5: dvc_md5(weights) if weights in report.files else "",
        }
        return dict(report.tags) | {name: value for name, value in tags.items() if value}

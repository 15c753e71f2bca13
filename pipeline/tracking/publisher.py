"""Brings MLflow's runs up to date with the files in `results/`, which are the source of truth.

Whatever is written here can be written again: a run is found by its tags and given only what it lacks. A tracking
server that is slow or down never stops a training run; what it missed is written at the next opportunity: the next
epoch, the evaluation, or `pipeline.restore`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.artifacts.dvc_lock import dvc_md5
from pipeline.artifacts.history import best_epoch, history_path
from pipeline.artifacts.metrics import worse_than_guessing
from pipeline.artifacts.weights import weights_path
from pipeline.lm.record import EpochRecord
from pipeline.tracking.description import RunDescription
from pipeline.tracking.facts import RunFacts, shown
from pipeline.tracking.identity import digest_of, epochs_of, find_run, milliseconds
from pipeline.tracking.notes import describe_run
from pipeline.tracking.origin import WEIGHTS_MD5
from pipeline.tracking.picture import PICTURE, picture
from pipeline.tracking.store import connect

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

WARNING = "warning"  # a tag
METRICS_A_REQUEST = 900  # MLflow takes at most 1,000

# Metrics with the same part before the slash share a section of charts on MLflow's page. Sections stand in the order of
# the alphabet, with those of no slash last: perplexity by epoch comes first, and final figures after all curves.
EPOCH_METRICS = {
    "perplexity/train": "train_perplexity",
    "perplexity/valid": "valid_perplexity",
    "training/learning_rate": "learning_rate",
    "training/grad_norm": "grad_norm",
    "speed/tokens_per_second": "tokens_per_second",
    "speed/seconds_per_epoch": "seconds",
}


class Publisher:
    """Keeps the MLflow run of one training run up to date.

    live: training is in progress in this process; otherwise a run that has to be created is marked as restored, and
    gets the original times of the training run.
    """

    def __init__(self, facts: RunFacts, *, live: bool = False) -> None:
        self.facts = facts
        self.live = live
        self._description = RunDescription(facts, live=live)
        self._client: MlflowClient
        self._run: Run | None = None  # as it was when it was opened
        self._epochs_written = 0
        self._monitor: SystemMetricsMonitor | None = None

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

        tags: to be set at the end, together with the status

        Raises whatever MLflow raises; the next call then checks again what the run has, because a request that failed
        may have arrived all the same.
        """
        try:
            run = self._run or self._open(history)
            lacked = [
                self._write_epochs(run, history),
                self._write_files(run, history, files),
                self._write_final(run, metrics or {}),
                status != "RUNNING" and self._warn(run, history, metrics or {}),
                status != "RUNNING" and self._end(run, history, status, failure, tags or {}),
                status != "RUNNING" and describe_run(self._client, run.info.run_id),
            ]
        except Exception:
            self._run = None
            self.stop_monitor()
            raise
        return run.info.run_id, any(lacked)

    def _open(self, history: Sequence[EpochRecord]) -> "Run":
        """Find the MLflow run of this training run, or create it, and check what it has."""
        client, experiment_id = connect()
        run = find_run(client, experiment_id, self.facts, history)
        run = run or self._description.create(client, experiment_id, history)
        self._description.complete(client, run)
        self._epochs_written = len(epochs_of(client, run))
        if self.live:
            client.update_run(run.info.run_id, "RUNNING")
            if "failure" in run.data.tags:
                client.delete_tag(run.info.run_id, "failure")
            self._monitor = _start_monitor(run.info.run_id, client)
        self._client, self._run = client, run
        return run

    def _write_epochs(self, run: "Run", history: Sequence[EpochRecord]) -> bool:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, getattr(record, attribute), milliseconds(record.finished_at), record.epoch)
            for record in history[self._epochs_written :]
            for name, attribute in EPOCH_METRICS.items()
        ]
        for start in range(0, len(metrics), METRICS_A_REQUEST):
            self._client.log_batch(run.info.run_id, metrics=metrics[start : start + METRICS_A_REQUEST])
        self._epochs_written = max(self._epochs_written, len(history))
        return bool(metrics)

    def _write_files(self, run: "Run", history: Sequence[EpochRecord], files: Sequence[Path]) -> bool:
        run_id = run.info.run_id
        present = {file.path: file.file_size for file in self._client.list_artifacts(run_id)} if files else {}
        lacking = [path for path in files if present.get(path.name) != path.stat().st_size]
        for path in lacking:
            self._client.log_artifact(run_id, str(path))
        weights = weights_path(self.facts.model)
        if weights in files and (weights in lacking or WEIGHTS_MD5 not in run.data.tags):
            self._client.set_tag(run_id, WEIGHTS_MD5, dvc_md5(weights))
        if not self.live and history_path(self.facts.model) in files and PICTURE not in present:
            with picture(history) as drawn:
                for path in drawn:
                    self._client.log_artifact(run_id, str(path))
        return bool(lacking)

    def _write_final(self, run: "Run", metrics: Mapping[str, float]) -> bool:
        run_id, present = run.info.run_id, run.data.metrics
        if all(present.get(shown(name)) == value for name, value in metrics.items()):
            return False
        self._client.log_dict(run_id, dict(metrics), "metrics.json")
        for name, value in metrics.items():
            self._client.log_metric(run_id, shown(name), value)
        return True

    def _warn(self, run: "Run", history: Sequence[EpochRecord], metrics: Mapping[str, float]) -> bool:
        best = vars(best_epoch(history)) if history else {}
        how = worse_than_guessing(best | dict(metrics), self.facts.words) if self.facts.words else ""
        if not how or WARNING in run.data.tags:
            return False
        self._client.set_tag(run.info.run_id, WARNING, how)
        return True

    def _end(
        self, run: "Run", history: Sequence[EpochRecord], status: str, failure: str, tags: Mapping[str, str]
    ) -> bool:
        if self._monitor:
            self._monitor.finish()
            _sample(self._monitor)
            self._monitor = None
        run_id, info, history_id = run.info.run_id, run.info, digest_of(history)
        if not self.live and info.status == status and run.data.tags.get("history") == history_id:
            return False
        for name, value in (dict(tags) | ({"failure": failure} if failure else {})).items():
            self._client.set_tag(run_id, name, value)
        if not self.live and not failure and "failure" in run.data.tags:  # of an interruption that MLflow saw last
            self._client.delete_tag(run_id, "failure")
        if status == "FINISHED":
            self._client.set_tag(run_id, "history", history_id)
        self._client.set_terminated(run_id, status, None if self.live else milliseconds(history[-1].finished_at))
        return True

    def stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


def _start_monitor(run_id: str, client: "MlflowClient") -> "SystemMetricsMonitor":
    """Processor, memory and network use, every ten seconds, as MLflow's own system metrics."""
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=client.tracking_uri)
    monitor.start()
    return monitor


def _sample(monitor: "SystemMetricsMonitor") -> None:
    """One more sample, of the time since the one before: a short run would have none."""
    for part in monitor.monitors:
        part.clear_metrics()
    monitor.collect_metrics()
    monitor.publish_metrics(monitor.aggregate_metrics())
    monitor.mlflow_logger.flush()

"""A sweep in MLflow: the parent run of its trials' runs, and what a server that was down has missed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.lm.record import EpochRecord
from pipeline.project.console import say
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import fault_message
from pipeline.tracking.origin import circumstances
from pipeline.tracking.publisher import Publisher, Report
from pipeline.tracking.store import connect, within

if TYPE_CHECKING:  # MLflow takes seconds to import
    from mlflow import MlflowClient
    from mlflow.entities import Run

MOST_RUNS = 50_000  # that MLflow returns at once
REMEDY = "`python -m pipeline.sweep ... --report` writes what is missing"


@dataclass(frozen=True)
class EndedRun:
    """A training run that has ended, the tags that say how, and its final figures."""

    facts: RunFacts
    history: Sequence[EpochRecord]
    tags: Mapping[str, str]
    failure: str
    metrics: Mapping[str, float]


def open_sweep(study: str, name: str) -> str | None:
    """The id of the parent run of a sweep's trials, created if there is none.

    Only one process at a time calls this. None if MLflow cannot be written to: `close_sweep` tries again.
    """

    def run_parent() -> str:
        client, experiment_id = connect()
        run = _sweep_run(client, experiment_id, study, name)
        client.update_run(run.info.run_id, "RUNNING")
        return str(run.info.run_id)

    try:
        return within(run_parent)
    except Exception as error:
        say(f"warning: {fault_message(error, REMEDY)}")
        return None


def close_sweep(
    study: str,
    name: str,
    trials: Iterable[EndedRun],
    files: Sequence[Path],
    metrics: Mapping[str, float],
) -> None:
    """Write what MLflow is missing of a sweep whose trials have all ended; only one process at a time calls this.

    Each trial has a deadline of its own, since there may be many.

    trials: those that finished an epoch
    """
    try:
        ended = within(lambda: _ended_trials(study))
        for trial in trials:
            if trial.facts.tags["trial"] not in ended:
                within(partial(_publish, trial))
        within(lambda: _end_runs(study, name, files, metrics))
    except Exception as error:  # everything is also in the study and in the files
        say(f"warning: {fault_message(error, REMEDY)}")


def _ended_trials(study: str) -> set[str]:
    """The numbers of the trials that have ended according to MLflow."""
    client, experiment_id = connect()
    runs = client.search_runs([experiment_id], f"tags.sweep = '{study}'", max_results=MOST_RUNS)
    return {run.data.tags["trial"] for run in runs if "trial_state" in run.data.tags}


def _publish(trial: EndedRun) -> None:
    status = "FAILED" if trial.failure else "FINISHED"
    Publisher(trial.facts).publish(Report(trial.history, status, trial.failure, trial.tags, metrics=trial.metrics))


def _end_runs(study: str, name: str, files: Sequence[Path], metrics: Mapping[str, float]) -> None:
    """End the parent run with its files and metrics, and whatever dead workers left running."""
    client, experiment_id = connect()
    parent = _sweep_run(client, experiment_id, study, name)
    for run in client.search_runs([experiment_id], f"tags.sweep = '{study}'", max_results=MOST_RUNS):
        if "mlflow.parentRunId" not in run.data.tags:  # created while MLflow had no parent run
            client.set_tag(run.info.run_id, "mlflow.parentRunId", parent.info.run_id)
        if run.info.status == "RUNNING":
            client.set_tag(run.info.run_id, "failure", "its worker died, and the trial was run again")
            client.set_terminated(run.info.run_id, "KILLED")
    for path in files:
        client.log_artifact(parent.info.run_id, str(path))
    for metric, value in metrics.items():
        if parent.data.metrics.get(metric) != value:
            client.log_metric(parent.info.run_id, metric, value)
    client.set_terminated(parent.info.run_id)


def _sweep_run(client: "MlflowClient", experiment_id: str, study: str, name: str) -> "Run":
    for run in client.search_runs([experiment_id], f"tags.sweep_parent = '{study}'"):
        return run
    return client.create_run(experiment_id, None, {"sweep_parent": study} | circumstances(), name)

"""A training run's record in MLflow while it is in progress."""

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.lm.record import EpochRecord
from pipeline.project.console import say
from pipeline.project.faults import explain
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import fault_message
from pipeline.tracking.publisher import Publisher, Report

GRACE_SECONDS = 30.0  # how long the end of a training run waits for a slow server


class LiveRun:
    """A training run in MLflow, written by a separate thread, so that no server can hold up training."""

    def __init__(self, facts: RunFacts, history: Sequence[EpochRecord] = ()) -> None:
        """history: the epochs of a training run that is resumed, by which its MLflow run is recognised."""
        self._remedy = facts.remedy
        self._publisher = Publisher(facts, live=True)
        self._reports: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._behind = False
        self._left = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        self.publish(history)

    def publish(self, history: Sequence[EpochRecord]) -> None:
        """Bring the run up to the newest epoch; returns at once."""
        self._history = tuple(history)
        self._reports.put(Report(self._history))

    def leave(self) -> None:
        """Write nothing more, not even the end: another process continues this run."""
        self._left = True
        self._reports.put(None)

    def end(self, status: str, **ending: Any) -> None:
        """Write whatever is left and end the run; waits for a slow server, but not for ever.

        ending: the other fields of `Report`
        """
        if self._left:
            return
        self._reports.put(Report(self._history, status, **ending))
        self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive() or self._behind:
            say(f"warning: MLflow is behind at the end of this training: {self._remedy}")

    def _work(self) -> None:
        while report := self._newest_report():
            try:
                self._publisher.publish(report)
                if self._behind:
                    say("MLflow is up to date again")
                self._behind = False
            except Exception as error:  # whatever goes wrong in MLflow, training continues
                if not self._behind:
                    say(f"warning: {fault_message(error, self._remedy)}")
                self._behind = True
            if report.status != "RUNNING":
                return
        self._publisher.stop_monitor()

    def _newest_report(self) -> Report | None:
        """Each report includes everything in the earlier ones, so those that waited for a slow server are skipped."""
        report = self._reports.get()
        while not self._reports.empty():
            report = self._reports.get()
        return report


@contextmanager
def live_run(facts: RunFacts, history: Sequence[EpochRecord] = ()) -> Iterator[LiveRun]:
    """A run that ends as KILLED if interrupted, as FAILED with the reason on an error; else its user ends it."""
    run = LiveRun(facts, history)
    try:
        yield run
    except KeyboardInterrupt:
        run.end("KILLED", failure="interrupted")
        raise
    except BaseException as error:
        run.end("FAILED", failure=f"{type(error).__name__}: {explain(error)}")
        raise

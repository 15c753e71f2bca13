"""A training run's record in MLflow while it is in progress."""

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.artifacts.history import history_path
from pipeline.lm.record import EpochRecord
from pipeline.project.console import say
from pipeline.project.faults import explain
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import fault_message
from pipeline.tracking.picture import picture
from pipeline.tracking.publisher import Publisher

GRACE_SECONDS = 30.0  # how long the end of a training run waits for a slow server


class LiveRun:
    """A training run in MLflow, written by a thread of its own so that no server can hold up training."""

    def __init__(self, facts: RunFacts, history: Sequence[EpochRecord] = ()) -> None:
        """history: the epochs of a training run that is resumed, by which its MLflow run is recognised."""
        self._publisher = Publisher(facts, live=True)
        self._reports: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._behind = False
        self._left = False
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()
        self.publish(history)

    def publish(self, history: Sequence[EpochRecord]) -> None:
        """Bring the run up to the newest epoch; returns at once."""
        self._history = tuple(history)
        self._reports.put({"history": self._history, "status": "RUNNING"})

    def leave(self) -> None:
        """Write nothing more, not even how it ends: another process goes on with this run."""
        self._left = True
        self._reports.put({})  # wakes the thread

    def end(
        self,
        status: str,
        *,
        failure: str = "",
        tags: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Write everything that is left and end the run; waits for a slow server, but not forever."""
        if self._left:
            return
        with ExitStack() as stack:
            if history_path(self._publisher.facts.model) in files:  # drawn before the server's time runs
                files = [*files, *stack.enter_context(picture(self._history))]
            end = {"status": status, "failure": failure, "tags": tags, "files": files, "metrics": metrics}
            self._reports.put({"history": self._history} | end)
            self._thread.join(GRACE_SECONDS)
        if self._thread.is_alive() or self._behind:
            say(f"warning: MLflow is behind at the end of this training: {self._publisher.facts.remedy}")

    def _work(self) -> None:
        while True:
            report = self._newest_report()
            if self._left:
                self._publisher.stop_monitor()
                return
            try:
                self._publisher.publish(**report)
                if self._behind:
                    say("MLflow is up to date again")
                self._behind = False
            except Exception as error:  # whatever goes wrong in MLflow, training continues
                if not self._behind:
                    say(f"warning: {fault_message(error, self._publisher.facts.remedy)}")
                self._behind = True
            if report["status"] != "RUNNING":
                return

    def _newest_report(self) -> dict[str, Any]:
        """Each report includes everything in the earlier ones, so those that a slow server kept waiting are skipped."""
        report = self._reports.get()
        while not self._reports.empty():
            report = self._reports.get()
        return report


@contextmanager
def live_run(facts: RunFacts, history: Sequence[EpochRecord] = ()) -> Iterator[LiveRun]:
    """A run that ends as KILLED when interrupted, as FAILED, with the reason, on an error; else as its user ends it."""
    run = LiveRun(facts, history)
    try:
        yield run
    except KeyboardInterrupt:
        run.end("KILLED", failure="interrupted")
        raise
    except BaseException as error:
        run.end("FAILED", failure=f"{type(error).__name__}: {explain(error)}")
        raise

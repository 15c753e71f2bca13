"""One trial of a sweep: claimed by a worker, run, and ended for good.

Each trial of the budget has a number of its own, kept in Optuna's trial as the attribute `trial`: Optuna gives a new
trial to every retry.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.artifacts.trials import State
from pipeline.lm.record import EpochRecord
from pipeline.sweeps.space import Picked, Space, draw


class TakenOverError(Exception):
    """Another worker has taken over a trial."""

    def __init__(self) -> None:
        super().__init__("taken over by another worker, for this one had been silent for too long")


@contextmanager
def _taking_over_is_noticed() -> Iterator[None]:
    try:
        yield
    except UpdateFinishedTrialError:
        raise TakenOverError from None


class Trial:
    """A trial that this worker has claimed and that lives as long as the `with` block does.

    If an interrupt or an error leaves the block before the trial has ended, it waits again for the next free worker.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        space: Space,
        storage: optuna.storages.RDBStorage,
        alone: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """alone: as `Study.alone`."""
        self.number: int = trial.user_attrs["trial"]
        self._trial = trial
        self._space = space
        self._storage = storage
        self._alone = alone
        self._reported = 0
        self._left = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._heart.join()
        if kind is not None:
            with suppress(SQLAlchemyError, StorageInternalError):  # it waits again once its silence is noticed
                self._tell(TrialState.FAIL)

    @cached_property
    def picked(self) -> Picked:
        """What this trial tries of the space; for a trial that is run again, the same as before."""
        return draw(self._space, self._trial)

    @_taking_over_is_noticed()
    def report(self, history: Sequence[EpochRecord]) -> bool:
        """Report all epochs so far; returns whether the trial is to be pruned. Raises TakenOverError."""
        for record in history[self._reported :]:
            self._trial.report(record.valid_perplexity, record.epoch)
        self._trial.set_user_attr("history", [asdict(record) for record in history])
        self._reported = len(history)
        return self._trial.should_prune()

    @_taking_over_is_noticed()
    def end(
        self, state: State, history: Sequence[EpochRecord], failure: str = "", test_perplexity: float | None = None
    ) -> None:
        """Record the trial as complete, pruned or diverged, for good. Raises TakenOverError."""
        for name, value in {"failure": failure, "test_perplexity": test_perplexity}.items():
            if value:
                self._trial.set_user_attr(name, value)
        complete = state == "complete"
        value = min(record.valid_perplexity for record in history) if complete else None
        if self._tell(TrialState.COMPLETE if complete else TrialState.PRUNED, value) == TrialState.FAIL:
            raise TakenOverError

    def _tell(self, state: TrialState, value: float | None = None) -> TrialState:
        """Returns the state the trial then has: a different one if it had already ended."""
        with self._alone():
            return self._trial.study.tell(self._trial, value, state, skip_if_finished=True).state

    def _beat(self) -> None:
        while not self._left.wait(self._storage.get_heartbeat_interval()):
            with suppress(SQLAlchemyError, StorageInternalError):  # the database may be back at the next beat
                self._storage.record_heartbeat(self._trial._trial_id)

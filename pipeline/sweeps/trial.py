"""One trial of a sweep: claimed by a worker, run, and ended.

Each planned trial has a number, stored in Optuna's trial as the attribute `trial`: in Optuna, a retry is a new trial
with a new number.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import FixedTrial, FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pipeline.artifacts.trials import EndedTrial, State
from pipeline.lm.record import EpochRecord
from pipeline.sweeps.space import Picked, Space, draw
from pipeline.sweeps.sweep import Sweep


class TakenOverError(Exception):
    """Another worker has taken over the trial, because this one had been silent for too long."""


@contextmanager
def _detects_takeover() -> Iterator[None]:
    try:
        yield
    except UpdateFinishedTrialError:
        raise TakenOverError from None


class Trial:
    """A trial that this worker has claimed. Within the `with` block, its heartbeat is recorded.

    If an interrupt or an error leaves the block before the trial has ended, the next free worker gets it.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        space: Space,
        storage: optuna.storages.RDBStorage,
        lock: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        """lock: see `Study.lock`."""
        self.number = number_of(trial)
        self._trial = trial
        self._space = space
        self._storage = storage
        self._lock = lock
        self._reported = 0
        self._stopped = threading.Event()
        self._heartbeat = threading.Thread(target=self._record_heartbeats, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._heartbeat.join()
        if kind is not None:
            with suppress(SQLAlchemyError, StorageInternalError):  # the missing heartbeat will be noticed instead
                self._tell(TrialState.FAIL)

    @cached_property
    def picked(self) -> Picked:
        """What is picked from the space; in a retry, the same as before."""
        return draw(self._space, self._trial)

    @_detects_takeover()
    def report(self, history: Sequence[EpochRecord]) -> bool:
        """Report all epochs so far; returns whether the trial is to be pruned. Raises TakenOverError."""
        for record in history[self._reported :]:
            self._trial.report(record.valid_perplexity, record.epoch)
        self._trial.set_user_attr("history", [asdict(record) for record in history])
        self._reported = len(history)
        return self._trial.should_prune()

    @_detects_takeover()
    def end(
        self, state: State, history: Sequence[EpochRecord], failure: str = "", test_perplexity: float | None = None
    ) -> None:
        """Record the trial as complete, pruned or diverged. Raises TakenOverError."""
        self._trial.set_user_attr("failure", failure)
        self._trial.set_user_attr("test_perplexity", test_perplexity)
        complete = state == "complete"
        lowest = min(record.valid_perplexity for record in history) if complete else None
        if self._tell(TrialState.COMPLETE if complete else TrialState.PRUNED, lowest) == TrialState.FAIL:
            raise TakenOverError

    def _tell(self, state: TrialState, value: float | None = None) -> TrialState:
        """Returns the trial's state, which differs from the given one if it had already ended."""
        with self._lock():
            return self._trial.study.tell(self._trial, value, state, skip_if_finished=True).state

    def _record_heartbeats(self) -> None:
        while not self._stopped.wait(self._storage.get_heartbeat_interval()):
            with suppress(SQLAlchemyError, StorageInternalError):  # the database may be back at the next heartbeat
                self._storage.record_heartbeat(self._trial._trial_id)


def number_of(trial: FrozenTrial | optuna.Trial) -> int:
    return int(trial.user_attrs["trial"])


def as_ended(trial: FrozenTrial, sweep: Sweep) -> EndedTrial:
    """An ended trial of Optuna's in our format."""
    failure = trial.user_attrs.get("failure", "")
    state: State = "diverged" if failure else "complete" if trial.state == TrialState.COMPLETE else "pruned"
    return EndedTrial(
        number=number_of(trial),
        state=state,
        group=sweep.group_name(trial.params),
        picked=trial.params,
        settings=sweep.settings(trial.params),
        history=[EpochRecord(**record) for record in trial.user_attrs.get("history", [])],
        failure=failure,
        test_perplexity=trial.user_attrs.get("test_perplexity"),
    )


def as_frozen(trial: EndedTrial, sweep: Sweep) -> FrozenTrial:
    """An ended trial of ours in Optuna's format. Raises ValueError if it was not picked from the sweep's space."""
    fixed = FixedTrial(trial.picked)
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # about values that `create_trial` refuses
        draw(sweep.space, fixed)
    complete = trial.state == "complete"
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if complete else TrialState.PRUNED,
        value=trial.valid_perplexity if complete else None,
        params=trial.picked,
        distributions=fixed.distributions,
        user_attrs={
            "trial": trial.number,
            "history": [asdict(record) for record in trial.history],
            "failure": trial.failure,
            "test_perplexity": trial.test_perplexity,
        },
        intermediate_values={record.epoch: record.valid_perplexity for record in trial.history},
    )

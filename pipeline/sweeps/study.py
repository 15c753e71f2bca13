"""The trials of a sweep, shared by any number of workers through Optuna and its database.

Two rules keep the number of trials exact, whenever a worker is killed. What remains to be done is derived from the
trials themselves: a number without a waiting, running or ended trial gets a new one. And only one worker at a time,
under a lock, makes decisions about trials.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, Engine, create_engine, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline.artifacts.trials import EndedTrial, KeptStudy, study_path
from pipeline.corpus.ids import Corpus
from pipeline.project.console import UserError
from pipeline.project.files import project_root
from pipeline.project.locks import Lock
from pipeline.sweeps.space import is_complete
from pipeline.sweeps.sweep import Sweep
from pipeline.sweeps.trial import Trial, as_ended, as_frozen, number_of

PATIENCE = {"sqlite": {"timeout": 60}, "postgresql": {"connect_timeout": 10}}  # seconds
LOCK_KEY = 1409_2329  # an arbitrary number
DRIVER_REMEDY = "pip install -r requirements-stores.txt -c constraints.txt"

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=ExperimentalWarning)


def identify(sweep: Sweep, kept: KeptStudy | None, corpus: Corpus | None) -> KeptStudy:
    """This sweep's study, without its trials, on the given corpus or else on the kept study's.

    Raises UserError if this study does not continue the kept one.
    """
    if corpus:
        data, sizes = corpus.fingerprint, corpus.sizes()
    else:
        assert kept
        data, sizes = kept.data_sha256, kept.corpus
    name = sweep.study_name(data)
    if kept and kept.ended and kept.name not in (name, *sweep.earlier_names(data)):
        path = study_path(sweep.name)
        raise UserError(
            f"{path} is of the study {kept.name}, which {sweep.path} does not continue: restore its settings or its"
            f" corpus, or move {path.parent} away to start a new study"
        )
    return KeptStudy(name=name, data_sha256=data, corpus=sizes, trials=sweep.trials)


class Study:
    """A sweep's trials in a database, which is created if necessary."""

    def __init__(self, sweep: Sweep, name: str, storage: str | None = None) -> None:
        """storage: a database's URL, sqlite or postgresql; None for the project's sweeps.db. Raises UserError."""
        self.sweep = sweep
        self.name = name
        self._url = _parse_url(storage)
        try:
            with self.faults():
                self._engine = create_engine(self._url)
        except ImportError:
            raise UserError(f"--storage: {self._url.drivername} has no driver installed: {DRIVER_REMEDY}") from None
        with self.faults(), self.lock():
            tables = set(inspect(self._engine).get_table_names())
            if "experiments" in tables:
                raise UserError(f"--storage: {self.place} is MLflow's database: use a separate one for sweeps")
            if "alembic_version" in tables and "studies" not in tables:  # Optuna would take it for its own
                raise UserError(f"--storage: {self.place} is another program's database: use a separate one for sweeps")
            self.storage = self._open_storage()
            optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)

    def _open_storage(self) -> optuna.storages.RDBStorage:
        try:
            return optuna.storages.RDBStorage(
                self._url.render_as_string(hide_password=False),
                {"connect_args": PATIENCE[self._url.get_backend_name()], "pool_pre_ping": True},
                heartbeat_interval=max(1, self.sweep.file.grace_seconds // 4),
                grace_period=self.sweep.file.grace_seconds,
            )
        except RuntimeError:  # which Optuna raises only for this
            raise UserError(
                f"--storage: {self.place} was written by another version of Optuna: use a new one for this sweep"
                f" (the trials that have ended come from {study_path(self.sweep.name)})"
            ) from None

    @property
    def place(self) -> str:
        """The location of the database, without user name and password."""
        return f"{self._url.host}/{self._url.database}" if self._url.host else str(self._url.database)

    def lock(self) -> AbstractContextManager[Any]:
        """Keeps all other workers of this sweep, on any machine, from making decisions in the meantime."""
        if self._url.get_backend_name() == "sqlite":
            database = Path(str(self._url.database)).absolute()
            return Lock(database.with_name(f".{database.name}.lock"))
        return _advisory_lock(self._engine)

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turns errors of the database into UserError, without the password."""
        try:
            yield
        except (SQLAlchemyError, StorageInternalError) as error:
            cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
            reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
            if password := self._url.password:
                reason = reason.replace(str(password), "***")
            raise UserError(f"the sweep's database: {reason}: fix that, then run the same command again") from None

    def claim(self) -> Trial | None:
        """Claim the first waiting trial for this worker; None if none is left, or other workers run all that are."""
        with self.lock():
            study = self._load()
            optuna.storages.fail_stale_trials(study)
            self._enqueue_missing(study)
            alive = _alive(study.get_trials(deepcopy=False))
            waiting = {number: t for number, t in alive.items() if t.state == TrialState.WAITING}
            number = min(waiting, default=self.sweep.trials + 1)
            if number > self.sweep.trials:
                return None
            study = self._load(number)
            study.get_trials(deepcopy=False)  # Optuna's cache has to know a trial that it did not create
            trial_id = waiting[number]._trial_id
            # In this order, because Optuna never considers a RUNNING trial without any heartbeat stale.
            self.storage.record_heartbeat(trial_id)
            self.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
            return Trial(optuna.Trial(study, trial_id), self.sweep.space, self.storage, self.lock)

    def ended(self) -> list[EndedTrial]:
        """All trials that have ended, in the order of their numbers."""
        trials = self._load().get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return sorted((as_ended(trial, self.sweep) for trial in trials), key=lambda trial: trial.number)

    def is_finished(self) -> bool:
        """Whether all planned trials have ended."""
        return {trial.number for trial in self.ended()} >= set(range(1, self.sweep.trials + 1))

    def add(self, ended: Sequence[EndedTrial]) -> int:
        """Add trials that have ended elsewhere, except those that are running or have ended here; returns how many."""
        with self.lock():
            study = self._load()
            optuna.storages.fail_stale_trials(study)
            known = _alive(study.get_trials(deepcopy=False))
            missing = [t for t in ended if t.number not in known or known[t.number].state == TrialState.WAITING]
            for trial in missing:
                if waiting := known.get(trial.number):
                    self.storage.set_trial_state_values(waiting._trial_id, TrialState.FAIL)
                try:
                    study.add_trial(as_frozen(trial, self.sweep))
                except ValueError:
                    where = f"{study_path(self.sweep.name)}, trial {trial.number}"
                    raise UserError(f"{where}: not picked from this sweep's space: restore the file with git") from None
        return len(missing)

    def _load(self, number: int = 0) -> optuna.Study:
        """The study in its current state, with the sampler for the trial of this number."""
        sampler, pruner = self.sweep.file.sampler.for_trial(number), self.sweep.file.pruner
        return optuna.load_study(
            study_name=self.name,
            storage=self.storage,
            sampler=sampler,
            pruner=pruner.build() if pruner else optuna.pruners.NopPruner(),
        )

    def _enqueue_missing(self, study: optuna.Study) -> None:
        """Enqueue a trial for each number that has none. If one failed, the new one gets the values picked for it.

        If it failed while they were being picked, all are picked again, from the same random numbers.
        """
        trials = study.get_trials(deepcopy=False)
        alive = _alive(trials)
        picked = {number_of(trial): trial.params for trial in trials if is_complete(self.sweep.space, trial.params)}
        picked |= dict(enumerate(self.sweep.grid, start=1))
        for number in range(1, self.sweep.trials + 1):
            if number not in alive:
                study.enqueue_trial(picked.get(number, {}), user_attrs={"trial": number})


def _alive(trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """The trials that are waiting, running or ended, by number."""
    return {number_of(trial): trial for trial in trials if trial.state != TrialState.FAIL}


@contextmanager
def _advisory_lock(engine: Engine) -> Iterator[None]:
    """A lock of PostgreSQL's, under a number that all workers share. It ends with the connection."""
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        yield


def _parse_url(storage: str | None) -> URL:
    if storage is None:
        return URL.create("sqlite", database=str(project_root() / "sweeps.db"))
    expected = "expected sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):
        raise UserError(f"--storage: not a database's URL: {expected}") from None
    backend = url.get_backend_name()
    if backend not in PATIENCE or not url.database:
        raise UserError(f"--storage: {expected}")
    if backend == "sqlite" and not Path(url.database).absolute().parent.is_dir():
        raise UserError(f"--storage: no folder {Path(url.database).parent}: create it first")
    return url

"""A finished training run's record in MLflow, whoever finished it and whenever."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.artifacts.checkpoint import checkpoint_path, fingerprint, training_id
from pipeline.artifacts.history import read_history
from pipeline.artifacts.teachers import TEACHER, all_teachers, teacher_history_path
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.project.console import UserError, say
from pipeline.project.files import project_root
from pipeline.project.locks import Lock
from pipeline.tracking.facts import RunFacts
from pipeline.tracking.faults import fault_message
from pipeline.tracking.origin import WEIGHTS_MD5
from pipeline.tracking.publisher import Publisher, Report
from pipeline.tracking.store import within


def publish_finished(
    facts: RunFacts, history: Sequence[EpochRecord], files: Sequence[Path], metrics: Mapping[str, float] | None
) -> tuple[str, bool]:
    """Bring MLflow up to date with a finished training run, in one process at a time.

    Returns the run's id, and whether anything was missing. Raises UserError if MLflow cannot be written to or does not
    accept everything in time.
    """

    def write() -> tuple[str, bool]:
        with Lock(project_root() / f".mlflow.{facts.model}.lock"):
            return Publisher(facts).publish(Report(history, "FINISHED", files=files, metrics=metrics or {}))

    try:
        return within(write)
    except Exception as error:
        raise UserError(fault_message(error, facts.remedy)) from None


def finished_teachers(facts: RunFacts) -> Iterator[tuple[RunFacts, list[EpochRecord], list[Path]]]:
    """The facts, history and files of each of a model's teachers whose training is complete. Raises UserError."""
    for title, settings in all_teachers(facts.model, facts.settings):
        if not (path := teacher_history_path(facts.model, title)).exists():
            continue
        if is_whole(history := read_history(path), settings):
            identity = facts.data_sha256 and fingerprint(settings, facts.data_sha256)
            known = training_id(checkpoint_path(TEACHER, identity)) if identity else None
            tags = {name: value for name, value in facts.tags.items() if name != WEIGHTS_MD5}
            teacher = replace(facts, model=title, settings=settings, tags=tags, training_id=known)
            yield replace(teacher, fingerprint=identity if known else None), history, [path]


def publish(
    facts: RunFacts, history: Sequence[EpochRecord], files: Sequence[Path], metrics: Mapping[str, float] | None = None
) -> str | None:
    """Write whatever MLflow is missing of a finished training run, final figures included.

    Returns the run's id, or None if MLflow could not be written to.
    """
    try:
        run_id, _ = publish_finished(facts, history, files, metrics)
        return run_id
    except UserError as error:  # the figures are in the files
        say(f"warning: {error}")
        return None

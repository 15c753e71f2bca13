"""A sweep's `trials.jsonl`: its study and every ended trial, enough to continue on another machine."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import PositiveFloat, PositiveInt, Settings, Strict
from pipeline.project.console import UserError
from pipeline.project.files import SWEEPS, atomic_write
from pipeline.settings.schema import CorpusSizes

State = Literal["complete", "pruned", "diverged"]
S = TypeVar("S", bound=Strict)


class EndedTrial(Strict):
    """A trial that has ended.

    number: from 1
    group: the name, in words, shared by the trials that differ only in their seed
    picked: the value or the bundle chosen at every place in the sweep's space
    failure: why it diverged; empty if it did not
    test_perplexity: of the best epoch's weights, if the sweep evaluates them
    """

    number: PositiveInt
    state: State
    group: str
    picked: dict[str, Any]
    settings: Settings
    history: list[EpochRecord]
    failure: str = ""
    test_perplexity: PositiveFloat | None = None

    @property
    def valid_perplexity(self) -> float:
        """The lowest of its epochs; infinite if it finished none."""
        return min((record.valid_perplexity for record in self.history), default=math.inf)


class KeptStudy(Strict):
    """A study with the trials that have ended so far.

    name: identifies the settings, the space and the corpus
    data_sha256: the corpus's fingerprint
    trials: the number planned
    ended: in the order of their numbers
    """

    name: str
    data_sha256: str
    corpus: CorpusSizes
    trials: PositiveInt
    ended: list[EndedTrial] = Field(default_factory=list)

    @property
    def complete(self) -> bool:
        return len(self.ended) >= self.trials


def study_path(sweep: str) -> Path:
    return SWEEPS / sweep / "trials.jsonl"


SEEDS = study_path("seeds")  # the report judges by it, and dvc.yaml says so


def write_study(path: Path, study: KeptStudy) -> None:
    """Write a line for the study and one for each trial; equal studies give equal bytes."""
    lines = [study.model_dump(exclude={"ended"}), *(trial.model_dump(exclude_defaults=True) for trial in study.ended)]
    with atomic_write(path) as file:
        file.writelines(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines)


def read_study(path: Path) -> KeptStudy | None:
    """The study, or None if there is no file or its first line is empty.

    Raises UserError, naming the line, if it has been altered.
    """
    try:
        first, *lines = path.read_bytes().splitlines() or [b""]
    except FileNotFoundError:
        return None
    if not first.strip():
        return None
    study = _parse(KeptStudy, first, path, 1)
    ended = [_parse(EndedTrial, line, path, number) for number, line in enumerate(lines, start=2)]
    for number, (before, trial) in enumerate(pairwise(ended), start=3):
        if trial.number <= before.number:
            raise UserError(f"{path}, line {number}: trial {trial.number} is out of order: restore the file with git")
    return study.model_copy(update={"ended": ended})


def _parse(schema: type[S], line: bytes, path: Path, number: int) -> S:
    try:
        return schema.model_validate_json(line)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise UserError(f"{path}, line {number}: {reason}: restore the file with git") from None

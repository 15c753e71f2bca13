"""What the earlier stages found, read back with every value checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from pipeline.console import UserError
from pipeline.files import CORPUS_METRICS, MODELS
from pipeline.history import best_epoch, read_history
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import PositiveFloat, PositiveInt, Settings, Strict
from pipeline.params import CorpusSizes

S = TypeVar("S", bound=Strict)


class Metrics(Strict):
    """A trained model's `metrics.json`; the perplexities are of the best epoch's weights.

    Those under dynamic evaluation are there when params.yaml asks for them.
    """

    train_perplexity: PositiveFloat
    valid_perplexity: PositiveFloat
    test_perplexity: PositiveFloat
    valid_perplexity_dynamic: PositiveFloat | None = None
    test_perplexity_dynamic: PositiveFloat | None = None
    best_epoch: PositiveInt
    parameters: PositiveInt


@dataclass(frozen=True)
class Result:
    """A trained and evaluated model: what it was to be, what it came to, and how it got there."""

    name: str
    settings: Settings
    metrics: Metrics
    history: list[EpochRecord]

    @property
    def best(self) -> EpochRecord:
        return best_epoch(self.history)

    @property
    def last(self) -> EpochRecord:
        return self.history[-1]


def read_results(models: Mapping[str, Settings]) -> list[Result]:
    """The results of all models. Raises UserError, naming the stage to run, when one is missing or out of date."""
    return [_read_result(name, settings) for name, settings in models.items()]


def read_corpus_sizes() -> CorpusSizes:
    """The sizes that `preprocess` found. Raises UserError."""
    return _read_json(CORPUS_METRICS, CorpusSizes, stage="preprocess")


def _read_result(name: str, settings: Settings) -> Result:
    folder = MODELS / name
    history_file = _require(folder / "history.csv", stage=f"train@{name}")
    result = Result(
        name=name,
        settings=settings,
        metrics=_read_json(folder / "metrics.json", Metrics, stage=f"evaluate@{name}"),
        history=read_history(history_file),
    )
    if result.last.epoch != settings.epochs:
        fault = f"ends at epoch {result.last.epoch}, but params.yaml asks for {settings.epochs}"
        raise UserError(f"{history_file} {fault}: run `dvc repro`")
    if result.metrics.best_epoch != result.best.epoch:
        fault = f"is of epoch {result.metrics.best_epoch}, but the best in {history_file} is {result.best.epoch}"
        raise UserError(f"{folder / 'metrics.json'} {fault}: run `dvc repro`")
    return result


def _read_json(path: Path, schema: type[S], stage: str) -> S:
    try:
        return schema.model_validate_json(_require(path, stage).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f" {part}:" for part in first["loc"])
        raise UserError(f"{path}:{where} {first['msg']}: `dvc repro {stage}` restores the file") from None


def _require(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path} not found: run `dvc repro {stage}`, or `dvc repro` for everything")
    return path

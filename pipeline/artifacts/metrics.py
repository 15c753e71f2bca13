"""Figures as JSON: of a model, of the corpus, of all models. Every value is checked when it is read back."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pipeline.artifacts.history import best_epoch
from pipeline.lm.record import EpochRecord
from pipeline.lm.settings import PositiveFloat, PositiveInt, Strict
from pipeline.project.console import UserError
from pipeline.project.files import CORPUS_METRICS, MODELS, VALID_PERPLEXITY, atomic_write
from pipeline.settings.schema import CorpusSizes

DEVICE_TOLERANCE = 1e-4  # by how much two devices may differ in the perplexity of the same weights

S = TypeVar("S", bound=Strict)


class Metrics(Strict):
    """A trained model's final figures; the perplexities are those of the best epoch's weights.

    Those of dynamic evaluation and at a fitted temperature are present if params.yaml asks for them, `gpu` if the model
    was trained on one.
    """

    train_perplexity: PositiveFloat
    valid_perplexity: PositiveFloat
    test_perplexity: PositiveFloat
    valid_perplexity_dynamic: PositiveFloat | None = None
    test_perplexity_dynamic: PositiveFloat | None = None
    valid_perplexity_tempered: PositiveFloat | None = None
    test_perplexity_tempered: PositiveFloat | None = None
    temperature: PositiveFloat | None = None
    best_epoch: PositiveInt
    parameters: PositiveInt
    gpu: str | None = None

    def figures(self) -> dict[str, float]:
        """The numbers that are present, by name."""
        return self.model_dump(exclude_none=True, exclude={"gpu"})


def metrics_path(model: str) -> Path:
    return MODELS / model / "metrics.json"


def write_metrics(model: str, metrics: Metrics) -> None:
    _write(metrics_path(model), metrics.model_dump(exclude_none=True))


def read_metrics(model: str) -> Metrics:
    """Raises UserError, naming the stage to run, if the file is missing or has been altered."""
    return _read(metrics_path(model), Metrics, stage=f"evaluate@{model}")


def mismatch(metrics: Metrics, history: Sequence[EpochRecord]) -> str | None:
    """Why these figures cannot be those of this training run's best weights; None if they can."""
    best = best_epoch(history)
    if metrics.best_epoch != best.epoch:
        return f"is of epoch {metrics.best_epoch}, but the best in the history is {best.epoch}"
    if not math.isclose(metrics.valid_perplexity, best.valid_perplexity, rel_tol=DEVICE_TOLERANCE):
        ours, theirs = metrics.valid_perplexity, best.valid_perplexity
        return f"has validation perplexity {ours:.2f}, but the best in the history is {theirs:.2f}"
    return None


def worse_than_guessing(figures: Mapping[str, Any], words: int) -> str:
    """A remark if one of these perplexities is above the number of words, that of a uniform guess; else empty."""
    perplexities = (value for name, value in figures.items() if "perplexity" in name)
    return f"worse than guessing among {words:,} words" if any(value > words for value in perplexities) else ""


def write_corpus_sizes(sizes: CorpusSizes) -> None:
    _write(CORPUS_METRICS, sizes.model_dump())


def write_valid_perplexities(perplexities: dict[str, float]) -> None:
    """Write the figure by which experiments are compared, by model, for `dvc metrics` and `dvc exp show`."""
    _write(VALID_PERPLEXITY, perplexities)


def read_corpus_sizes() -> CorpusSizes:
    """The sizes that `preprocess` found. Raises UserError."""
    return _read(CORPUS_METRICS, CorpusSizes, stage="preprocess")


def _write(path: Path, figures: Mapping[str, float | str]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(figures, indent=2) + "\n")


def _read(path: Path, schema: type[S], stage: str) -> S:
    try:
        return schema.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path} not found: run `dvc repro {stage}`, or `dvc repro` for everything") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f" {part}:" for part in first["loc"])
        raise UserError(f"{path}:{where} {first['msg']}: `dvc repro {stage}` restores the file") from None

"""The results of the earlier stages, read back with every value checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.artifacts.history import best_epoch, history_path, read_history
from pipeline.artifacts.metrics import Metrics, metrics_path, mismatch, read_metrics
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.lm.settings import Settings
from pipeline.project.console import UserError


@dataclass(frozen=True)
class Result:
    """A trained and evaluated model: its settings, its final figures, and its epochs."""

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
    """The results of all models. Raises UserError, naming the stage to run, if one is missing or out of date."""
    return [_read_result(name, settings) for name, settings in models.items()]


def _read_result(name: str, settings: Settings) -> Result:
    path = history_path(name)
    if not path.exists():
        raise UserError(f"{path} not found: run `dvc repro train@{name}`, or `dvc repro` for everything")
    result = Result(name, settings, read_metrics(name), read_history(path))
    if not is_whole(result.history, settings):
        stop = f", or fewer with a patience of {settings.patience}" if settings.patience else ""
        fault = f"ends at epoch {result.last.epoch}, but params.yaml asks for {settings.epochs}{stop}"
        raise UserError(f"{path} {fault}: run `dvc repro`")
    if difference := mismatch(result.metrics, result.history):
        raise UserError(f"{metrics_path(name)} {difference}: run `dvc repro`")
    return result

"""The results of the earlier stages, read and validated, and a table of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.artifacts.history import best_epoch, history_path, read_history
from pipeline.artifacts.metrics import Metrics, metrics_path, mismatch, read_metrics
from pipeline.lm.record import EpochRecord, is_whole
from pipeline.lm.settings import Settings
from pipeline.project.console import UserError
from pipeline.settings.schema import Perplexities

NONE = "-"


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


def results_table(results: Sequence[Result], course_report: Mapping[str, Perplexities]) -> str:
    """A row for each model, the course report's figures beside ours if there are any."""
    rows = []
    for result in results:
        metrics, reference = result.metrics, course_report.get(result.name)
        row = {
            "model": f"`{result.name}`",
            "valid": f"{metrics.valid_perplexity:.2f}",
            "test": f"**{metrics.test_perplexity:.2f}**",
        }
        for kind in ("tempered", "dynamic"):
            figures = [getattr(each.metrics, f"test_perplexity_{kind}") for each in (result, *results)]
            if any(figures):
                row[f"test, {kind}"] = f"{figures[0]:.2f}" if figures[0] else NONE
        row["train"] = f"{metrics.train_perplexity:.2f}"
        if course_report:
            row["course report, valid"] = f"{reference.valid:.2f}" if reference else NONE
            row["course report, test"] = f"{reference.test:.2f}" if reference else NONE
        row |= {
            "cell": cell_name(result.settings.cell),
            "dropout": f"{result.settings.dropout:g}",
            "parameters": f"{metrics.parameters:,}",
            "best epoch": f"{metrics.best_epoch} of {result.last.epoch}",
            "training time": duration(sum(record.seconds for record in result.history)),
        }
        rows.append(list(row.values()))
    return table(list(row), rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, aligned left, and the others numbers, aligned right."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def duration(seconds: float) -> str:
    """Seconds in words: `under 1 min`, `5 min`, `1 h 02 min`."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min" if minutes else "under 1 min"


def cell_name(cell: str) -> str:
    """The usual spelling: `gru_textbook` is GRU (textbook)."""
    kind, _, variant = cell.partition("_")
    return f"{kind.upper()} ({variant})" if variant else kind.upper()

"""`history.csv`: one line per epoch, written exactly and read back with every line checked."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from datetime import datetime
from pathlib import Path

from pipeline.lm.record import EpochRecord
from pipeline.project.console import UserError, counted
from pipeline.project.files import MODELS, atomic_write

HEADER = ",".join(field.name for field in fields(EpochRecord))
_NUMBERS = [field.name for field in fields(EpochRecord) if field.type is float]


def history_path(model: str) -> Path:
    return MODELS / model / "history.csv"


def write_history(path: Path, records: Iterable[EpochRecord]) -> None:
    """Write a model's epochs, from epoch 1. Every number reads back exactly."""
    with atomic_write(path) as file:
        file.writelines(f"{line}\n" for line in [HEADER, *map(_line, records)])


def write_histories(path: Path, histories: Mapping[str, Sequence[EpochRecord]]) -> None:
    """Write the epochs of several models as one table whose first column is `model`."""
    with atomic_write(path) as file:
        file.write(f"model,{HEADER}\n")
        for model, records in histories.items():
            file.writelines(f"{model},{_line(record)}\n" for record in records)


def read_history(path: Path) -> list[EpochRecord]:
    """Read a model's epochs, at least one. Raises UserError, naming file and line, if a line has been altered."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} not found: `dvc repro` restores it, or trains the model") from None
    except UnicodeDecodeError:
        raise _altered(path, 1, "not text in UTF-8") from None
    header, *lines = text.removesuffix("\n").split("\n")
    if header != HEADER:
        raise _altered(path, 1, f"the header is not {HEADER}")
    if not lines:
        raise _altered(path, 1, "no epochs")
    return [_parse(line, epoch, path) for epoch, line in enumerate(lines, start=1)]


def best_epoch(records: Sequence[EpochRecord]) -> EpochRecord:
    """The epoch with the lowest validation perplexity; of equal ones, the first."""
    return min(records, key=lambda record: record.valid_perplexity)


def _line(record: EpochRecord) -> str:
    return ",".join(map(str, astuple(record)))  # str of a float is the shortest text that reads back exactly


def _parse(line: str, epoch: int, path: Path) -> EpochRecord:
    where = epoch + 1
    names, values = HEADER.split(","), line.split(",")
    if len(values) != len(names):
        raise _altered(path, where, f"{counted(len(values), 'value')} instead of {len(names)}")
    row = dict(zip(names, values, strict=True))
    if row["epoch"] != str(epoch):
        raise _altered(path, where, f"epoch {row['epoch']!r} instead of {epoch}")
    try:
        datetime.strptime(row["finished_at"], "%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise _altered(path, where, f"finished_at is {row['finished_at']!r}") from None
    numbers = {name: _number(row[name], name, where, path) for name in _NUMBERS}
    return EpochRecord(epoch=epoch, finished_at=row["finished_at"], **numbers)


def _number(text: str, name: str, line: int, path: Path) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _altered(path, line, f"{name} is {text!r}, not a finite number")
    return number


def _altered(path: Path, line: int, fault: str) -> UserError:
    return UserError(f"{path}, line {line}: {fault}: `dvc repro` restores the file")

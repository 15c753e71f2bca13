"""history.csv reads back exactly, and a damaged line is always an error."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifacts.history import HEADER, best_epoch, read_history, write_histories, write_history
from pipeline.lm.record import EpochRecord
from pipeline.project.console import UserError
from tests.histories import history

PATH = Path("results/models/lstm/history.csv")
numbers = st.floats(allow_nan=False, allow_infinity=False)
records = st.builds(
    EpochRecord,
    epoch=st.none(),
    learning_rate=numbers,
    train_perplexity=numbers,
    valid_perplexity=numbers,
    grad_norm=numbers,
    tokens_per_second=numbers,
    seconds=numbers,
    finished_at=st.datetimes(min_value=datetime(2000, 1, 1)).map(lambda time: f"{time:%Y-%m-%dT%H:%M:%SZ}"),
)
histories = st.lists(records, min_size=1, max_size=20).map(
    lambda epochs: [replace(record, epoch=epoch) for epoch, record in enumerate(epochs, start=1)]
)


@given(histories)
def test_a_history_reads_back_exactly(epochs: list[EpochRecord]) -> None:
    write_history(PATH, epochs)
    assert read_history(PATH) == epochs


@given(histories, st.data())
def test_a_history_cut_anywhere_but_at_a_line_end_is_refused(epochs: list[EpochRecord], data: st.DataObject) -> None:
    write_history(PATH, epochs)
    whole = PATH.read_text()
    kept = whole[: data.draw(st.integers(0, len(whole) - 2))]
    PATH.write_text(kept)
    lines = kept.rstrip("\n")
    if lines.count("\n") and whole[len(lines)] == "\n":
        assert read_history(PATH) == epochs[: lines.count("\n")]
    else:
        with pytest.raises(UserError, match=r"history\.csv, line \d+: .*dvc repro"):
            read_history(PATH)


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, "valid_perplexity", "valid_ppl"),
        (2, "120.0", "none"),
        (3, "110.0", "nan"),
        (3, "110.0", "inf"),
        (3, "110.0", ""),
        (3, "110.0", "110.0,0.0"),
        (3, "\n2,", "\n3,"),
        (4, "2026-01-31T12:03:00Z", "yesterday"),
        (4, "3,", "\n3,"),
    ],
)
def test_an_altered_line_is_named(line: int, old: str, new: str) -> None:
    write_history(PATH, history([120.0, 110.0, 115.0]))
    lines = PATH.read_text().splitlines(keepends=True)
    text = "".join(lines[: line - 2]) + "".join(lines[line - 2 :]).replace(old, new, 1)
    PATH.write_text(text if line > 1 else "".join(lines).replace(old, new, 1))
    with pytest.raises(UserError, match=rf"history\.csv, line {line}: "):
        read_history(PATH)


@pytest.mark.parametrize("content", [b"", b"\n", f"{HEADER}\n".encode(), b"\xff\xfe\x00"])
def test_a_file_without_epochs_is_refused(content: bytes) -> None:
    PATH.parent.mkdir(parents=True)
    PATH.write_bytes(content)
    with pytest.raises(UserError, match="line 1: "):
        read_history(PATH)


def test_a_missing_file_is_named_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"results/models/lstm/history\.csv not found: .*dvc repro"):
        read_history(PATH)


def test_the_best_epoch_is_the_first_of_the_lowest_valid_perplexity() -> None:
    assert best_epoch(history([120.0, 110.0, 115.0, 110.0])).epoch == 2


def test_the_table_of_all_models_starts_each_line_with_the_model() -> None:
    models = {"lstm": history([120.0, 110.0]), "gru": history([130.0])}
    write_histories(PATH, models)
    header, *lines = PATH.read_text().splitlines()
    assert header == f"model,{HEADER}"
    assert [line.split(",")[:2] for line in lines] == [["lstm", "1"], ["lstm", "2"], ["gru", "1"]]
    write_history(PATH, models["lstm"])
    assert [line.removeprefix("lstm,") for line in lines[:2]] == PATH.read_text().splitlines()[1:]

"""What a log shows of a training: a line after the first seconds, then one a minute."""

import math
import time
from collections.abc import Callable

import pytest
import torch

from pipeline.lm.progress import EpochInProgress
from pipeline.lm.training import Training
from pipeline.project.console import command_hint, counted, progress
from pipeline.train import so_far
from tests.histories import history
from tests.small import small_settings


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the seconds that have passed."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + now[0])
    return lambda seconds: now.__setitem__(0, seconds)


def test_a_line_comes_after_the_first_seconds_and_then_one_a_minute(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(1000, "lstm", "step", initial=100) as bar:
        for second in range(1, 151):
            clock(second)
            bar.update(2)
    assert capsys.readouterr().err.splitlines() == [
        "lstm  130 of 1,000 steps  about 0:07:15 left",
        "lstm  250 of 1,000 steps  about 0:06:15 left",
        "lstm  370 of 1,000 steps  about 0:05:15 left",
    ]


def test_a_slow_start_is_left_out_of_the_time_that_is_left(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(1000, "lstm", "step") as bar:
        for second in range(1, 16):
            clock(second)
            bar.update(10 if second > 8 else 0)
    assert capsys.readouterr().err == "lstm  70 of 1,000 steps  about 0:01:33 left\n"


def test_what_is_short_says_nothing_and_what_has_no_end_no_time(
    clock: Callable[[float], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with progress(None, "score", "B") as bar:
        bar.update(10)
        assert capsys.readouterr().err == ""
        clock(20)
        bar.update(10)
    assert capsys.readouterr().err == "score  20 B\n"


def test_a_trainings_line_tells_epoch_step_and_perplexities() -> None:
    settings, text = small_settings(epochs=70, batch_size=1, bptt=1), torch.zeros(1861, dtype=torch.int64)
    training = Training(settings, text, text[:2], 3)
    assert so_far(training) == "epoch 1/70  step 0/1,860"
    results = torch.zeros(2, 1860)
    results[0, :40] = 2 * math.log(100)
    training.current = EpochInProgress(results, {}, steps=40, tokens=80)
    assert so_far(training) == "epoch 1/70  step 40/1,860  train 100.00 so far"
    training.history = history([120.5, 110.25])
    assert so_far(training) == (
        "epoch 3/70  step 40/1,860  train 100.00 so far  after epoch 2: train 399.00  valid 110.25"
    )
    training.current.results = torch.zeros(2, 1861)  # random windows may be one more
    assert "step 40/1,861" in so_far(training)


def test_one_of_a_thing_has_no_s(tmp_path) -> None:
    assert [counted(number, "epoch") for number in (0, 1, 1200)] == ["0 epochs", "1 epoch", "1,200 epochs"]
    assert command_hint("ui", "python -m pipeline.ui") == "`python -m pipeline.ui`"
    (tmp_path / "Makefile").touch()
    assert command_hint("ui", "python -m pipeline.ui") == "`make ui`"

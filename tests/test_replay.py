"""Steps that are recorded once and replayed train as steps taken one by one, to the bit.

The recorder keeps operations and tensors as a CUDA graph does, on a CPU: a rate that is a Python number, a mask drawn
once for all, a state that is not carried on would show.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.lm import backend as table
from pipeline.lm.errors import NotRecordableError
from pipeline.lm.replay import WARM_UP
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from pipeline.project.faults import explain
from tests.recorder import CannotRecord, RecordedOnCPU
from tests.small import CELLS, OPTIMIZERS, everything, small_settings

VOCAB = 30
WINDOWS = 12
TEXT = torch.randint(VOCAB, (4 * (5 * WINDOWS + 2),), generator=torch.Generator().manual_seed(0))  # the last is short


class Watched(Training):
    """A training by the GPU's way, its steps recorded by what `kind` says; None: not at all."""

    def __init__(self, settings: Settings, monkeypatch: pytest.MonkeyPatch, kind: Callable | None) -> None:
        super().__init__(settings, TEXT, TEXT[:99], VOCAB)
        self.recorders: list[RecordedOnCPU] = []

        def make() -> RecordedOnCPU:
            self.recorders.append(kind(self.changed))
            return self.recorders[-1]

        monkeypatch.setitem(table.BACKENDS, "cpu", table.GPU._replace(recorder=make if kind else None))

    def changed(self) -> list[Tensor]:
        in_optimizer = [x for of in self.optimizer.state.values() for x in of.values() if isinstance(x, Tensor)]
        return [*self.model.parameters(), *in_optimizer]

    def results(self) -> tuple[list[Tensor], list[tuple[float, ...]]]:
        weights = [weight.detach().clone() for weight in self.model.parameters()]
        return weights, [(r.train_perplexity, r.valid_perplexity, r.grad_norm) for r in self.history]


def trained(training: Watched, epochs: int = 3) -> Watched:
    while len(training.history) < epochs:
        training.run_epoch()
    return training


def same(a: Watched, b: Watched) -> bool:
    (weights, records), (others, other_records) = a.results(), b.results()
    return all(map(torch.equal, weights, others)) and records == other_records


@pytest.mark.parametrize("random_windows", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
@pytest.mark.parametrize("cell", CELLS)
def test_replayed_steps_train_as_those_taken_one_by_one(
    cell: str, optimizer: dict[str, Any], random_windows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = everything(cell, optimizer).model_copy(update={"random_windows": random_windows})
    replayed = trained(Watched(settings, monkeypatch, RecordedOnCPU))
    assert [recorder.recorded for recorder in replayed.recorders] == [1] * 3
    assert all(recorder.replayed >= WINDOWS - WARM_UP - 2 for recorder in replayed.recorders)
    assert same(replayed, trained(Watched(settings, monkeypatch, None)))


def test_the_first_window_the_warm_up_and_the_short_one_are_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trained(Watched(small_settings(), monkeypatch, RecordedOnCPU), epochs=1)
    (recorder,) = training.recorders
    assert len(training.train) == WINDOWS + 1
    assert (recorder.recorded, recorder.replayed) == (1, WINDOWS - 1 - WARM_UP)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
def test_a_restored_training_replays_to_the_same_weights(optimizer: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = everything("lstm", optimizer)
    half = trained(Watched(settings, monkeypatch, RecordedOnCPU), epochs=1).state_dict()
    restored = Watched(settings, monkeypatch, RecordedOnCPU)
    restored.load_state_dict(half)
    assert same(trained(restored), trained(Watched(settings, monkeypatch, RecordedOnCPU)))


@pytest.mark.parametrize("taken", [2, WARM_UP + 1, WARM_UP + 2, WINDOWS, WINDOWS + 1])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
def test_a_training_restored_in_the_middle_of_an_epoch_replays_the_steps_that_it_would_have(
    optimizer: dict, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = everything("lstm", optimizer)
    whole = trained(Watched(settings, monkeypatch, RecordedOnCPU), epochs=2)
    half = trained(Watched(settings, monkeypatch, RecordedOnCPU), epochs=1)

    class KilledError(Exception):
        pass

    def kill() -> None:
        if half.current.steps == taken:
            raise KilledError

    with pytest.raises(KilledError):
        half.run_epoch(kill)
    saved = copy.deepcopy(half.state_dict())
    restored = Watched(settings, monkeypatch, RecordedOnCPU)
    restored.load_state_dict(saved)
    assert same(trained(restored, epochs=2), whole)
    (recorder,), uninterrupted = restored.recorders, whole.recorders[1]
    assert recorder.recorded == uninterrupted.recorded
    rehearsed = taken >= WARM_UP + 2  # its recording was replayed once
    assert recorder.replayed == uninterrupted.replayed - max(0, min(taken, WINDOWS) - WARM_UP - 1) + rehearsed


def test_where_recording_fails_it_says_why_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot go on step by step: the random generator of a GPU stays as it was while recording."""
    training = Watched(everything("gru", OPTIMIZERS[0]), monkeypatch, CannotRecord)
    with pytest.raises(NotRecordableError) as fault:
        training.run_epoch()
    assert explain(fault.value).endswith("(operation not permitted when stream is capturing): set cuda_graph: off")


def test_switched_off_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Watched(small_settings(cuda_graph="off"), monkeypatch, CannotRecord)
    assert trained(training, epochs=1).recorders == []


def test_of_several_processes_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    training = Watched(small_settings(), monkeypatch, CannotRecord)
    monkeypatch.setattr("pipeline.lm.training.world_size", lambda: 2)
    training.steps()
    assert training.recorders == []


def test_a_number_of_pythons_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU's way to set the rate, a recorded step keeps that of when it was recorded."""
    settings = everything("lstm", OPTIMIZERS[0])
    ends = []
    for kind in (RecordedOnCPU, None):
        training = Watched(settings, monkeypatch, kind)
        ways = table.BACKENDS["cpu"]._replace(set_rate=table.CPU.set_rate)
        monkeypatch.setitem(table.BACKENDS, "cpu", ways)
        ends.append(trained(training, epochs=1))
    assert not same(*ends)


def test_the_setting_is_left_out_where_it_is_as_by_default() -> None:
    assert "cuda_graph" not in small_settings().essentials()
    assert small_settings(cuda_graph="off").essentials()["cuda_graph"] == "off"

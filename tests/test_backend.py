"""The GPU's way of computing against the CPU's: it is plain PyTorch, so both run here."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.lm import backend as table
from pipeline.lm.batching import IGNORED
from pipeline.lm.dropout import draw_masks_in_turn
from pipeline.lm.model import build_model
from pipeline.lm.settings import Settings
from pipeline.lm.training import Training
from tests.small import CELLS, KEPT_SETTINGS, OPTIMIZERS, small_settings

VOCAB = 60
TEXT = torch.randint(VOCAB, (4 * 5 * 12 + 3,), generator=torch.Generator().manual_seed(0))  # the end is padded
SAME_MASKS = table.GPU._replace(draw_masks=draw_masks_in_turn, recorder=None)


def model_settings() -> dict[str, Settings]:
    """The default models and those of `best`, in small; all but the default cell besides."""
    small = {"hidden_size": 24, "embedding_size": 24, "batch_size": 4, "bptt": 5, "epochs": 3, "device": "cpu"}
    small |= {"precision": "float32", "distillation": None}
    models = {
        run: Settings.model_validate(settings).model_copy(update=small)
        for run, settings in KEPT_SETTINGS.items()
        if run.startswith(("default-", "best-"))
    }
    return models | {"gru_textbook": models["best-gru_dropout"].model_copy(update={"cell": "gru_textbook"})}


MODELS = model_settings()


@pytest.mark.parametrize("name", MODELS)
def test_loss_and_gradients_of_a_window_are_equal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens, targets = torch.randint(VOCAB, (2, 5, 4), generator=torch.Generator().manual_seed(1))
    targets[3:, 2:] = IGNORED
    results = []
    for ways in (table.CPU, SAME_MASKS):
        monkeypatch.setitem(table.BACKENDS, "cpu", ways)
        model = build_model(MODELS[name], VOCAB)
        state = None
        for _ in range(2):
            loss, state = model(tokens, state, targets)
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def trained(settings: Settings, ways: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Tensor, list[tuple[float, ...]]]:
    """The weights after training, and what is recorded of each epoch."""
    monkeypatch.setitem(table.BACKENDS, "cpu", ways)
    training = Training(settings, TEXT, TEXT[:99], VOCAB)
    records = [training.run_epoch() for _ in range(settings.epochs)]
    weights = torch.cat([weight.detach().flatten() for weight in training.model.parameters()])
    return weights, [(r.train_perplexity, r.valid_perplexity, r.grad_norm, r.learning_rate) for r in records]


@pytest.mark.parametrize("name", MODELS)
def test_trainings_are_equal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = [trained(MODELS[name], ways, monkeypatch) for ways in (table.CPU, SAME_MASKS)]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-4)
    assert results[1][1] == [pytest.approx(record, rel=1e-4) for record in results[0][1]]


@pytest.mark.parametrize("max_grad_norm", [0.05, None])  # always clipped, never clipped
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=["sgd", "adamw"])
def test_updates_are_equal_clipped_or_not_at_a_rate_that_changes(
    optimizer: dict, max_grad_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(
        optimizer=optimizer,
        max_grad_norm=max_grad_norm,
        learning_rate=0.05 if optimizer["name"] == "sgd" else 0.005,  # AdamW's steps have the rate's size
        schedule={"name": "linear", "warmup": 0.1},
        random_windows=True,
    )
    results = [trained(settings, ways, monkeypatch) for ways in (table.CPU, SAME_MASKS)]
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-4)
    assert results[1][1] == [pytest.approx(record, rel=1e-5) for record in results[0][1]]


@pytest.mark.parametrize("cell", CELLS)
def test_a_checkpoint_of_either_is_gone_on_with_by_the_other(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = small_settings(cell=cell, dropout=0.2, weight_dropout=0.2, learning_rate=0.5)
    ends = []
    for ways in ([table.CPU] * 2, [table.CPU, SAME_MASKS], [SAME_MASKS, table.CPU]):
        saved = None
        for own in ways:
            monkeypatch.setitem(table.BACKENDS, "cpu", own)
            training = Training(settings, TEXT, TEXT[:99], VOCAB)
            if saved:
                training.load_state_dict(saved)
            training.run_epoch()
            saved = training.state_dict()
        ends.append(torch.cat([weight.detach().flatten() for weight in training.model.parameters()]))
    for end in ends[1:]:
        torch.testing.assert_close(end, ends[0], rtol=0, atol=1e-5)


def test_every_device_that_can_be_chosen_is_in_the_table() -> None:
    assert {"cpu", "cuda"} == set(table.BACKENDS)

"""The temperature that suits a text best, found by its slope and curvature."""

import pytest
import torch
import torch.nn.functional as F

from pipeline.inference.temperature import AtTemperature, best_temperature, num_windows, tempered_losses
from pipeline.lm.batching import Batches
from pipeline.lm.evaluation import evaluate
from pipeline.lm.model import LanguageModel, build_model, start_as_unigrams
from tests.small import CELLS, small_settings

VOCAB = 30
TEXT = torch.randint(VOCAB, (400,), generator=torch.Generator().manual_seed(0)) ** 2 % VOCAB
SPLITS = {"valid": Batches(TEXT[:230], 4, 5), "test": Batches(TEXT[230:], 4, 5)}  # with padding and a short window


def sure(cell: str, factor: float) -> LanguageModel:
    """A model that knows how frequent each word is, with its logits times a factor: above 1, it is too sure."""
    model = build_model(small_settings(cell=cell), VOCAB)
    start_as_unigrams(model, TEXT)
    with torch.no_grad():
        for parameter in model.output.parameters():
            parameter.mul_(factor)
    return model


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_no_other_temperature_is_better(cell: str, factor: float) -> None:
    model, valid = sure(cell, factor), SPLITS["valid"]
    best = best_temperature(model, valid)
    losses = [evaluate(AtTemperature(model, best * times), valid) for times in (0.98, 1.0, 1.02)]
    assert losses[1] == min(losses)
    assert losses[1] < evaluate(model, valid)


def test_logits_of_twice_the_size_take_twice_the_temperature() -> None:
    once, twice = (best_temperature(sure("lstm", factor), SPLITS["valid"]) for factor in (1.0, 2.0))
    assert twice == pytest.approx(2 * once, rel=1e-3)


def test_it_is_fitted_on_valid_and_used_on_both() -> None:
    model, windows = sure("gru", 2.0), []
    temperature, losses = tempered_losses(model, SPLITS, lambda: windows.append(1))
    assert temperature == best_temperature(model, SPLITS["valid"])
    assert len(windows) == num_windows(SPLITS)
    for split, loss in losses.items():
        state, total = None, 0.0
        for inputs, targets, _ in SPLITS[split]:
            with torch.no_grad():
                logits, state = model(inputs, state)
            total += F.cross_entropy(logits.flatten(0, 1) / temperature, targets.flatten(), reduction="sum").item()
        assert loss == pytest.approx(total / SPLITS[split].num_tokens, rel=1e-6)

"""Dropout: the share asked for, the scale, and off in evaluation."""

import pytest
import torch

from pipeline.lm.dropout import Dropout, WeightDropout, dropout_mask
from pipeline.lm.model import CELLS


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_the_share_asked_for_is_zeroed_and_the_rest_scaled(rate: float) -> None:
    torch.manual_seed(1)
    dropped = Dropout(rate)(torch.ones(1, 100, 1000))
    assert (dropped == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    kept = dropped[dropped != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))


def test_every_number_is_dropped_on_its_own() -> None:
    """Four masks come out of each draw of 64 bits: they must not hang together."""
    torch.manual_seed(1)
    kept = (Dropout(0.5)(torch.ones(1, 50_000, 4)) != 0).double()[0]
    torch.testing.assert_close(torch.corrcoef(kept.t()), torch.eye(4, dtype=torch.float64), atol=0.02, rtol=0)


def test_the_gradient_takes_the_same_way() -> None:
    x = torch.ones(1, 7, 143, requires_grad=True)
    dropped = Dropout(0.3)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)


def test_masks_follow_the_seed() -> None:
    first, again, other = (torch.manual_seed(seed) and Dropout(0.5)(torch.ones(1, 1, 100)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_is_dropped_in_evaluation_or_at_rate_0() -> None:
    x = torch.randn(1, 1, 10)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


def test_locked_all_times_share_a_mask() -> None:
    torch.manual_seed(1)
    dropped = Dropout(0.4, locked=True)(torch.ones(7, 50, 100))
    assert all(torch.equal(step, dropped[0]) for step in dropped)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("cell", CELLS)
def test_with_dropped_weights_a_layer_is_the_one_that_has_them_at_zero(cell: str) -> None:
    torch.manual_seed(1)
    layer = CELLS[cell](6, 8)
    x = torch.randn(5, 3, 6)
    with torch.no_grad():
        state = layer(torch.randn(1, 3, 6))[1]
    dropout = WeightDropout(0.4)
    torch.manual_seed(2)
    outputs, _ = dropout(layer, x, state)
    outputs.sum().backward()

    same = CELLS[cell](6, 8)
    same.load_state_dict(layer.state_dict())
    recurrent = [name for name, _ in layer.named_parameters() if name in WeightDropout.RECURRENT]
    assert sum(layer.get_parameter(name).numel() for name in recurrent) == 8 * 8 * (4 if cell == "lstm" else 3)
    torch.manual_seed(2)
    masks = {name: dropout_mask(layer.get_parameter(name).shape, 0.4, x.device) for name in recurrent}
    with torch.no_grad():
        for name, mask in masks.items():
            same.get_parameter(name).mul_(mask)
    expected, _ = same(x, state)
    torch.testing.assert_close(outputs, expected)
    expected.sum().backward()
    for name, mask in masks.items():
        torch.testing.assert_close(layer.get_parameter(name).grad, same.get_parameter(name).grad * mask)


@pytest.mark.parametrize("cell", CELLS)
def test_no_weight_is_dropped_in_evaluation_or_at_rate_0(cell: str) -> None:
    layer, x = CELLS[cell](6, 8), torch.randn(5, 3, 6)
    for dropout in (WeightDropout(0.4).eval(), WeightDropout(0.0)):
        assert torch.equal(dropout(layer, x, None)[0], layer(x)[0])

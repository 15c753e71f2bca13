"""Dropout: the share asked for, the scale, off in evaluation; the masks of both devices, drawn here on a CPU."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from pipeline.lm.cells import CELLS
from pipeline.lm.dropout import (
    Mask,
    draw_masks,
    draw_masks_in_turn,
    dropped_weights,
    dropped_weights_in_one_piece,
)
from pipeline.lm.model import build_model
from tests.small import small_settings

CPU = torch.device("cpu")
WAYS = [draw_masks, draw_masks_in_turn]


def draw(way: Callable, rate: float, *shape: int) -> Tensor:
    return way([Mask(torch.Size(shape), rate)], CPU)[0]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.1, 0.4, 0.9])
def test_the_share_asked_for_is_zero_and_the_rest_scaled(rate: float, way: Callable) -> None:
    torch.manual_seed(1)
    mask = draw(way, rate, 1, 100, 1000)
    assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=0.005)
    kept = mask[mask != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.99999, 0.999993, 1 - 2**-53])
def test_however_close_the_rate_is_to_1_nearly_all_is_zero(rate: float, way: Callable) -> None:
    torch.manual_seed(1)
    assert (draw(way, rate, 1000, 1000) != 0).sum() < 100


@pytest.mark.parametrize("way", WAYS)
def test_every_number_is_dropped_on_its_own(way: Callable) -> None:
    """Four masks come out of each draw of 64 bits: they must not hang together."""
    torch.manual_seed(1)
    kept = (draw(way, 0.5, 50_000, 4) != 0).double()
    torch.testing.assert_close(torch.corrcoef(kept.t()), torch.eye(4, dtype=torch.float64), atol=0.02, rtol=0)


@pytest.mark.parametrize("way", WAYS)
def test_masks_follow_the_seed(way: Callable) -> None:
    first, again, other = (torch.manual_seed(seed) and draw(way, 0.5, 100) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("way", WAYS)
def test_masks_of_one_window_have_their_shapes_and_rates_and_differ(way: Callable) -> None:
    torch.manual_seed(1)
    wanted = [Mask(torch.Size([50, 40]), 0.2), Mask(torch.Size([10, 20, 10]), 0.6), Mask(torch.Size([40, 50]), 0.2)]
    masks = way(wanted, CPU)
    for mask, (shape, rate) in zip(masks, wanted, strict=True):
        assert mask.shape == shape
        assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=0.05)
    assert not torch.equal(masks[0].flatten(), masks[2].flatten())


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_is_dropped_in_evaluation_or_at_rate_0(cell: str) -> None:
    tokens = torch.randint(20, (5, 4))
    dropping, same = (build_model(small_settings(cell=cell, **rates), 20) for rates in ({"dropout": 0.5}, {}))
    dropping.weight_dropout = 0.5
    expected = same(tokens)[0]
    assert not torch.allclose(dropping(tokens)[0], expected)
    assert torch.equal(dropping.eval()(tokens)[0], expected)
    assert same.masks(5, 4) == {}


def test_what_is_dropped_in_the_order_of_use() -> None:
    settings = small_settings(dropout=0.4, embedding_dropout=0.1, output_dropout=0.0, weight_dropout=0.3)
    masks = build_model(settings, 20).masks(time=5, batch=4)
    recurrent = ((64, 16), 0.3)
    assert list(masks.items()) == [
        ((0, ""), ((5, 4, 16), 0.1)),
        ((1, "weight_hh_l0"), recurrent),
        ((1, ""), ((5, 4, 16), 0.4)),
        ((2, "weight_hh_l0"), recurrent),
    ]


def test_locked_all_times_share_a_mask() -> None:
    masks = build_model(small_settings(dropout=0.4, locked_dropout=True), 20).masks(time=7, batch=4)
    assert [mask.shape for mask in masks.values()] == [(1, 4, 16)] * 3


@pytest.mark.parametrize("way", [dropped_weights, dropped_weights_in_one_piece])
@pytest.mark.parametrize("cell", CELLS)
def test_with_dropped_weights_a_layer_is_the_one_that_has_them_at_zero(cell: str, way: Callable) -> None:
    torch.manual_seed(1)
    layer, same = CELLS[cell](6, 8), CELLS[cell](6, 8)
    same.load_state_dict(layer.state_dict())
    x = torch.randn(5, 3, 6)
    with torch.no_grad():
        state = layer(torch.randn(1, 3, 6))[1]
    recurrent = {name: layer.get_parameter(name) for name in layer.recurrent_weights}
    assert sum(weight.numel() for weight in recurrent.values()) == 8 * 8 * (4 if cell == "lstm" else 3)
    masks = {name: draw(draw_masks, 0.4, *weight.shape) for name, weight in recurrent.items()}
    outputs, _ = functional_call(layer, way(layer, masks), (x, state))
    outputs.sum().backward()

    with torch.no_grad():
        for name, mask in masks.items():
            same.get_parameter(name).mul_(mask)
    expected, _ = same(x, state)
    torch.testing.assert_close(outputs, expected)
    expected.sum().backward()
    for name, weight in layer.named_parameters():
        gradient = same.get_parameter(name).grad
        torch.testing.assert_close(weight.grad, gradient * masks[name] if name in masks else gradient)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_for_cudnn_all_weights_of_a_layer_lie_in_one_piece_in_its_order(cell: str) -> None:
    layer = CELLS[cell](6, 8)
    masks = {name: torch.ones_like(layer.get_parameter(name)) for name in layer.recurrent_weights}
    weights = dropped_weights_in_one_piece(layer, masks)
    assert list(weights) == ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    start = weights["weight_ih_l0"].data_ptr()
    for name, weight in weights.items():
        assert torch.equal(weight, layer.get_parameter(name))
        assert weight.data_ptr() == start, name
        start += weight.numel() * weight.element_size()

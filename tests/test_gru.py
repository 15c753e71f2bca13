"""Our GRU against PyTorch's: same parameters, same outputs, same gradients."""

import pytest
import torch
from torch import Tensor, nn

from pipeline.lm.cells import GRU

TIME, BATCH, INPUTS, HIDDEN = 7, 3, 5, 4


def pair() -> tuple[GRU, nn.GRU]:
    """The two with the same weights, in float64."""
    torch.manual_seed(1)
    ours, reference = GRU(INPUTS, HIDDEN).double(), nn.GRU(INPUTS, HIDDEN).double()
    reference.load_state_dict(ours.state_dict())
    return ours, reference


def gradients(layer: nn.GRU, x: Tensor, state: Tensor | None) -> list[Tensor]:
    """Of a loss that every output weighs in differently, towards input, state and parameters."""
    h, last = layer(x, state)
    loss = (h * torch.linspace(-1, 1, h.numel()).view_as(h)).sum() + (last**2).sum()
    wanted = [x, *([state] if state is not None else []), *layer.parameters()]
    return list(torch.autograd.grad(loss, wanted))


@pytest.mark.parametrize("with_state", [False, True])
def test_outputs_and_gradients_are_those_of_pytorch(with_state: bool) -> None:
    ours, reference = pair()
    x = torch.randn(TIME, BATCH, INPUTS, dtype=torch.float64, requires_grad=True)
    state = torch.randn(1, BATCH, HIDDEN, dtype=torch.float64, requires_grad=True) if with_state else None
    torch.testing.assert_close(ours(x, state), reference(x, state))
    torch.testing.assert_close(gradients(ours, x, state), gradients(reference, x, state))


def test_gradients_are_the_slopes() -> None:
    ours, _ = pair()
    x = torch.randn(3, 2, INPUTS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ours(x)[0], (x,))


def test_products_in_bfloat16_change_the_gradients_by_their_rounding_only() -> None:
    ours, _ = pair()
    ours = ours.float()
    x = torch.randn(TIME, BATCH, INPUTS, requires_grad=True)
    exact = gradients(ours, x, None)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = gradients(ours, x, None)
    for gradient, expected in zip(rounded, exact, strict=True):
        assert gradient.dtype is torch.float32
        assert 0 < (gradient - expected).norm() / expected.norm() < 0.05

"""The fused softmax layer and loss against PyTorch's two."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.lm.batching import IGNORED
from pipeline.lm.loss import ROWS, linear_cross_entropy_by_rows

VOCAB, HIDDEN = 30, 8


def example(tokens: int) -> tuple[list[Tensor], Tensor]:
    """Features, weight and bias that want gradients, and targets of which some are padding."""
    torch.manual_seed(tokens)
    shapes = [(tokens, HIDDEN), (VOCAB, HIDDEN), (VOCAB,)]
    targets = torch.randint(VOCAB, (tokens,))
    targets[::7] = IGNORED
    return [torch.randn(shape, requires_grad=True) for shape in shapes], targets


@pytest.mark.parametrize("tokens", [2, ROWS - 1, ROWS, 3 * ROWS + 1])
def test_loss_and_gradients_are_those_of_the_two_in_turn(tokens: int) -> None:
    inputs, targets = example(tokens)
    reference = F.cross_entropy(F.linear(*inputs), targets, ignore_index=IGNORED, reduction="sum")
    loss = linear_cross_entropy_by_rows(*inputs, targets)
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    for gradient, expected in zip(
        torch.autograd.grad(3 * loss, inputs), torch.autograd.grad(3 * reference, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


def test_products_in_bfloat16_change_the_gradients_by_their_rounding_only() -> None:
    inputs, targets = example(200)
    exact = torch.autograd.grad(linear_cross_entropy_by_rows(*inputs, targets), inputs)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = torch.autograd.grad(linear_cross_entropy_by_rows(*inputs, targets), inputs)
    for gradient, expected in zip(rounded, exact, strict=True):
        assert gradient.dtype is torch.float32
        assert 0 < (gradient - expected).norm() / expected.norm() < 0.02


def test_a_certain_mistake_costs_what_it_should() -> None:
    """Far beyond where exp overflows or a probability underflows."""
    weight = torch.tensor([[500.0], [-500.0]])
    loss = linear_cross_entropy_by_rows(torch.ones(1, 1), weight, torch.zeros(2), torch.tensor([1]))
    assert loss.item() == 1000

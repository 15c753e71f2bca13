"""Dropout. All masks of a window are drawn before it is read, because on a GPU each draw costs a launch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Mask(NamedTuple):
    """A mask to draw: zero with probability `rate`, else 1/(1 - rate)."""

    shape: torch.Size
    rate: float


def draw_masks(wanted: Sequence[Mask], device: torch.device) -> list[Tensor]:
    """float32 masks; one call of the random generator draws all that have the same rate."""
    drawn: dict[int, Tensor] = {}
    for rate in dict.fromkeys(mask.rate for mask in wanted):
        places = [place for place, mask in enumerate(wanted) if mask.rate == rate]
        sizes = [math.prod(wanted[place].shape) for place in places]
        numbers = torch.empty(sum(sizes), device=device).bernoulli_(1 - rate).div_(1 - rate)
        drawn |= zip(places, numbers.split(sizes), strict=True)
    return [drawn[place].view(mask.shape) for place, mask in enumerate(wanted)]


def draw_masks_in_turn(wanted: Sequence[Mask], device: torch.device) -> list[Tensor]:
    """float32 masks, drawn four times as fast on a CPU: 16 random bits each, so the rate is exact to 1/65,536."""
    return [dropout_mask(*mask, device) for mask in wanted]


def dropout_mask(shape: torch.Size, rate: float, device: torch.device) -> Tensor:
    """float32: 0 with probability `rate`, else 1/(1 - rate)."""
    threshold = min(round(rate * 2**16), 2**16 - 1) - 2**15  # in int16, however close the rate is to 1
    keep = random_bits(shape, device) >= threshold
    return keep.to(torch.float32).div_(1 - rate)


def random_bits(shape: torch.Size, device: torch.device) -> Tensor:
    """Uniform int16 of the given shape; PyTorch draws 64 bits at a time, which make four of them."""
    count = math.prod(shape)
    draws = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return draws.view(torch.int16)[:count].view(shape)


def dropped_weights(layer: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer's recurrent weights times their masks, which have the same names and shapes."""
    return {name: layer.get_parameter(name) * mask for name, mask in masks.items()}


def dropped_weights_in_one_piece(layer: nn.Module, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same, together with the layer's other weights in one contiguous piece of memory, as cuDNN needs them."""
    if not isinstance(layer, nn.RNNBase):
        return dropped_weights(layer, masks)
    names = [name for name, _ in layer.named_parameters()]
    (dropped,) = masks
    pieces = _OnePiece.apply(masks[dropped], names.index(dropped), *layer.parameters())
    return dict(zip(names, pieces, strict=True))


class _OnePiece(torch.autograd.Function):
    """Two launches forward and one backward; otherwise cuDNN copies weight by weight."""

    @staticmethod
    def forward(ctx: Any, mask: Tensor, place: int, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(mask)
        ctx.place = place
        parts = [weight * mask if i == place else weight for i, weight in enumerate(weights)]
        piece = torch.cat([part.flatten() for part in parts])
        pieces = piece.split([part.numel() for part in parts])
        return tuple(part.view_as(weight) for part, weight in zip(pieces, weights, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (mask,) = ctx.saved_tensors
        return None, None, *(g * mask if i == ctx.place else g for i, g in enumerate(gradients))

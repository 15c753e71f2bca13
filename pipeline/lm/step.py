"""One update of the weights."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.lm.backend import backend
from pipeline.lm.device import products_in
from pipeline.lm.distributed import world_size
from pipeline.lm.loss import SoftTargets
from pipeline.lm.model import State, detach
from pipeline.lm.settings import Settings


class Given(NamedTuple):
    """What a step learns from: a window, and what teachers predict of it.

    inputs, targets [time, batch]; scale []: what the summed loss is multiplied by, as `loss_scale` gives it
    """

    inputs: Tensor
    targets: Tensor
    scale: Tensor
    soft: SoftTargets | None = None

    def tensors(self) -> list[Tensor]:
        """Those that differ from step to step."""
        return [self.inputs, self.targets, self.scale, *([] if self.soft is None else [self.soft.features])]


class Step(NamedTuple):
    """loss: in nats, summed over the window; grad_norm: before clipping; state: for the next window, detached."""

    loss: Tensor
    grad_norm: Tensor
    state: State


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    precision: torch.dtype,
    given: Given,
    state: State | None,
) -> Step:
    """Forward from the state of the previous window, backward, clip, update.

    Nothing here waits for the device or is a Python number that changes from step to step, so that it can be replayed.
    """
    with products_in(precision, given.inputs.device):
        loss, state = model(given.inputs, state, given.targets, given.soft)
    optimizer.zero_grad()
    loss.backward(given.scale)
    grad_norm = backend(given.inputs.device).clip_and_update(optimizer, settings.max_grad_norm)
    return Step(loss.detach(), grad_norm, detach(state))


def loss_scale(num_tokens: int, settings: Settings, device: torch.device) -> Tensor:
    """The factor from a window's summed loss, over so many tokens, to the loss that is minimized: [] float32."""
    divisor = num_tokens if settings.loss == "mean" else settings.batch_size
    # Processes that share the batch average their gradients.
    return torch.full((), world_size() / divisor, device=device)

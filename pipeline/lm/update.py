"""The optimizer, its rate, and the update that clips the gradient."""

import math

import torch
from torch import Tensor, nn

from pipeline.lm.settings import AdamW, Settings


def build_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD as in Zaremba et al. (2014), plus any momentum and weight decay in the settings, or AdamW.

    Fused: one pass over all weights. `capturable` lets a CUDA graph record AdamW, which counts its steps on the device.
    """
    chosen, rate = settings.optimizer, settings.learning_rate
    if isinstance(chosen, AdamW):
        weight_decay = chosen.weight_decay
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=weight_decay, fused=True, capturable=True)
    return torch.optim.SGD(model.parameters(), rate, chosen.momentum, weight_decay=chosen.weight_decay, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the following updates."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def set_rate_on_device(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same, in a tensor on the weights' device: a captured step reads it there at every replay."""
    for group in optimizer.param_groups:
        device = group["params"][0].device
        if not isinstance(group["lr"], Tensor) or group["lr"].device != device:  # as loaded from a checkpoint
            group["lr"] = torch.empty((), device=device)
        group["lr"].fill_(rate)


def clip_then_update(optimizer: torch.optim.Optimizer, max_norm: float | None) -> Tensor:
    """Clip the gradient to `max_norm` (None: no clipping) and update; returns the norm before clipping."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.clip_grad_norm_(weights, max_norm or math.inf)
    optimizer.step()
    return norm


def clip_in_update(optimizer: torch.optim.Optimizer, max_norm: float | None) -> Tensor:
    """The same with fewer launches: a fused optimizer divides the gradient by `grad_scale` while updating.

    This is how `torch.amp.GradScaler` passes its scale.
    """
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    scale = None if max_norm is None else (norm / max_norm).clamp(min=1)
    optimizer.grad_scale = scale  # type: ignore[attr-defined]
    optimizer.step()
    return norm
